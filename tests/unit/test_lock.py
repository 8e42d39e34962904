"""Lock files: who excludes whom, the order, the mark."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerhold import lock
from layerhold.errors import LockOrder, ReadOnlyStore, StorageError
from layerhold.lock import BothLocks, LockFile, ReadersLock
from tests import stores


@contextmanager
def another_process(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in a forked child that lives, with what it holds, until the block ends."""
    ready, release = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(ready[1], b"!")
            os.close(release[1])
            os.read(release[0], 1)
        finally:
            os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"!"
        yield
    finally:
        for fd in (*ready, *release):
            os.close(fd)
        os.waitpid(child, 0)


def take_as_go_does(path: Path, kind: int) -> Callable[[], object]:
    """A classic POSIX lock on the whole file."""
    return lambda: fcntl.lockf(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), kind)


def posix_lock_is_free(path: Path, kind: int) -> bool:
    """Tell whether another process can have a classic POSIX lock."""
    child = os.fork()
    if child == 0:
        try:
            fcntl.lockf(os.open(path, os.O_RDWR), kind | fcntl.LOCK_NB)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.lock"


def lock_file(path: Path, rank: int = lock.LAYERS, store: str = "") -> LockFile:
    return LockFile(str(path), rank=rank, store=store)


def test_a_posix_lock_of_another_process_excludes_ours(path: Path) -> None:
    with another_process(take_as_go_does(path, fcntl.LOCK_EX)), lock_file(path).try_exclusive() as held:
        assert held is None
    with lock_file(path).try_exclusive() as held:
        assert held is not None


def test_readers_share(path: Path) -> None:
    with another_process(take_as_go_does(path, fcntl.LOCK_SH)):
        with lock_file(path).shared() as held:
            assert not held.exclusive
        with lock_file(path).try_exclusive() as none:
            assert none is None


def test_ours_exclude_posix_locks(path: Path) -> None:
    with lock_file(path).exclusive():
        assert not posix_lock_is_free(path, fcntl.LOCK_SH)
    with lock_file(path).shared():
        assert posix_lock_is_free(path, fcntl.LOCK_SH)
        assert not posix_lock_is_free(path, fcntl.LOCK_EX)
    assert posix_lock_is_free(path, fcntl.LOCK_EX)


def test_closing_another_descriptor_does_not_drop_the_lock(path: Path) -> None:
    with lock_file(path).exclusive():
        os.close(os.open(path, os.O_RDONLY))
        assert not posix_lock_is_free(path, fcntl.LOCK_EX)


def test_a_forked_child_does_not_keep_the_lock(path: Path) -> None:
    with lock_file(path).exclusive() as held:
        children = another_process(lambda: held)
        children.__enter__()
    try:
        assert posix_lock_is_free(path, fcntl.LOCK_EX)
    finally:
        children.__exit__(None, None, None)


def test_threads_exclude_each_other(path: Path) -> None:
    counts: list[int] = []

    def add() -> None:
        for _ in range(20):
            with lock_file(path).exclusive():
                before = len(counts)
                time.sleep(0.0001)
                counts.append(before)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == list(range(80))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((lock.IMAGES, "images"), (lock.LAYERS, "layers")),
        ((lock.LAYERS, "layers"), (lock.LAYERS, "layers")),
        ((lock.LAYERS, "layers"), (lock.LAYERS, "other")),
        ((lock.ADDITIONAL_LAYERS, "layers"), (lock.ADDITIONAL_LAYERS, "layers")),
        ((lock.MOUNTS, "mounts"), (lock.STORAGE, "storage")),
    ],
)
def test_out_of_order_raises_at_once(tmp_path: Path, first: tuple[int, str], second: tuple[int, str]) -> None:
    with lock_file(tmp_path / first[1], first[0]).shared():
        for take in ("shared", "exclusive", "try_exclusive"):
            with pytest.raises(LockOrder), getattr(lock_file(tmp_path / second[1], second[0]), take)():
                pass


def test_order_that_is_allowed(tmp_path: Path) -> None:
    ranks = [lock.STORAGE, lock.USERNS, lock.LAYERS, lock.IMAGESTORE_LAYERS, lock.ADDITIONAL_LAYERS]
    ranks += [lock.ADDITIONAL_LAYERS, lock.IMAGES, lock.ADDITIONAL_IMAGES, lock.CONTAINERS, lock.MOUNTS]
    held = [lock_file(tmp_path / str(at), rank).exclusive() for at, rank in enumerate(ranks)]
    for one in held:
        one.__enter__()
    with lock_file(tmp_path / "elsewhere", lock.LAYERS, store="another store").exclusive():
        pass
    for one in reversed(held):
        one.__exit__(None, None, None)
    with lock_file(tmp_path / "0", lock.STORAGE).exclusive():
        pass


def test_order_is_for_each_thread(tmp_path: Path) -> None:
    failures = []

    def take() -> None:
        try:
            with lock_file(tmp_path / "layers", lock.LAYERS).exclusive():
                pass
        except LockOrder as error:
            failures.append(error)

    with lock_file(tmp_path / "images", lock.IMAGES).exclusive():
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert not failures


def test_a_failing_block_gives_the_lock_back(path: Path) -> None:
    with pytest.raises(KeyError), lock_file(path).exclusive():
        raise KeyError
    with lock_file(path).try_exclusive() as held:
        assert held is not None


def test_mark_is_as_the_newest_go_library_writes_it(path: Path) -> None:
    with lock_file(path).exclusive() as held:
        assert held.last_writer() == b""
        first, before = held.record_write(), time.time_ns()
        second = held.record_write()
        assert held.last_writer() == second == path.read_bytes()
    assert len(first) == 64
    times, counts, pids = zip(*(struct.unpack("<QQI", mark[:20]) for mark in (first, second)), strict=True)
    assert times[0] <= before <= times[1] < before + 10**10
    assert counts[1] == counts[0] + 1 >= 2
    assert pids == (os.getpid(), os.getpid())
    assert first[20:] != second[20:]


def test_marks_of_every_generation_are_read_and_replaced(path: Path) -> None:
    for mark in (b"0123456789abcdef" * 4, bytes(range(64)), b"", b"short"):
        path.write_bytes(mark)
        with lock_file(path).exclusive() as held:
            assert held.last_writer() == mark
            assert held.record_write() == path.read_bytes()


def test_marking_needs_the_exclusive_lock(path: Path) -> None:
    with lock_file(path).shared() as held, pytest.raises(ReadOnlyStore):
        held.record_write()


def test_mode_of_a_new_file(path: Path) -> None:
    old = os.umask(0o027)
    try:
        with lock_file(path).shared():
            assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


def test_links_and_directories_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "directory", "pipe"):
        with pytest.raises(StorageError, match=name), lock_file(tmp_path / name).exclusive():
            pass
    assert not target.exists()
    with pytest.raises(FileNotFoundError, match="missing"), lock_file(tmp_path / "missing/x").shared():
        pass


def test_descriptors_are_not_inherited_and_are_closed(path: Path) -> None:
    before = set(stores.descriptors())
    with lock_file(path).exclusive():
        (mine,) = (fd for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}") == str(path))
        assert not os.get_inheritable(int(mine))
    assert set(stores.descriptors()) == before


def test_a_readers_lock_needs_no_file(path: Path) -> None:
    readers = ReadersLock(str(path), rank=lock.ADDITIONAL_LAYERS)
    with readers.shared() as held:
        assert held.last_writer() == b""
        with pytest.raises(ReadOnlyStore):
            held.record_write()
    with pytest.raises(ReadOnlyStore), readers.exclusive():
        pass
    assert not path.exists()


def test_a_readers_lock_keeps_writers_out(path: Path) -> None:
    with lock_file(path).exclusive() as held:
        mark = held.record_write()
    with ReadersLock(str(path), rank=lock.ADDITIONAL_LAYERS, store="other").shared() as reading:
        assert reading.last_writer() == mark
        with lock_file(path).try_exclusive() as got:
            assert got is None


def test_two_locks_as_one(path: Path) -> None:
    second = path.with_name("second.lock")
    both = BothLocks(LockFile(str(path), rank=lock.LAYERS), LockFile(str(second), rank=lock.IMAGESTORE_LAYERS))
    with both.exclusive() as held:
        mark = held.record_write()
        with LockFile(str(second), rank=lock.LAYERS, store="other").try_exclusive() as got:
            assert got is None
    with both.shared() as reading:
        assert reading.last_writer() == mark
    assert len(second.read_bytes()) == lock.MARK_SIZE
    assert second.read_bytes() != mark


@pytest.mark.root
def test_a_read_only_file_system_is_enough_for_readers(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    try:
        with lock_file(tmp_path / "x.lock").exclusive() as held:
            mark = held.record_write()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with lock_file(tmp_path / "x.lock").shared() as held:
            assert held.last_writer() == mark
        with pytest.raises(OSError, match="Read-only"), lock_file(tmp_path / "x.lock").exclusive():
            pass
        with pytest.raises(FileNotFoundError), lock_file(tmp_path / "none.lock").shared():
            pass
    finally:
        subprocess.run(["umount", tmp_path], check=True)
