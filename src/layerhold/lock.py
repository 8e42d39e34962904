"""Locks on files, shared with the Go programs.

Each acquisition opens the file and takes an open-file-description lock on all of it, which excludes other processes,
the classic POSIX locks of the Go library, and other threads of this process alike. So there is no table of locks and
no counter; what is kept, for each thread, is which locks it holds, so that taking two in the wrong order, or one
twice, raises LockOrder at once instead of hanging. Ranks (below, in the order in which locks may be taken) count for
each store by itself. Released by F_UNLCK, then close, since a forked child would keep an open file description's lock
alive.

The first 64 bytes of a lock file are the last writer's mark. The library of 1.42 and later writes: 8 bytes wall clock
in ns, 8 bytes counter of the process from 1, 4 bytes process ID (all little endian), 44 random bytes; before, 64 hex
digits. Marks are compared, never interpreted. A crash leaves nothing: the kernel drops the lock.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time

from layerhold.blocks import contextmanager
from layerhold.errors import LockOrder, ReadOnlyStore, StorageError
from layerhold.linux import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STORAGE = 10
USERNS = 20
LAYERS = 30
IMAGESTORE_LAYERS = 31
ADDITIONAL_LAYERS = 40
IMAGES = 50
GRAPHROOT_IMAGES = 51
ADDITIONAL_IMAGES = 60
CONTAINERS = 70
MOUNTS = 80
DIGEST = 0  # of callers, who may hold several, and any lock of the store behind them

MARK_SIZE = 64
_SEVERAL = (DIGEST, ADDITIONAL_LAYERS, ADDITIONAL_IMAGES)  # ranks of which one thread may hold several locks
_NO_FILE = -1


class Held:
    """The lock is held: proof of it, and the way to the last writer's mark."""

    def __init__(self, fd: int, *, exclusive: bool) -> None:
        self._fd = fd
        self.exclusive = exclusive

    def last_writer(self) -> bytes:
        """Read the mark; fewer than 64 bytes if nobody wrote one yet."""
        return os.pread(self._fd, MARK_SIZE, 0)

    def record_write(self) -> bytes:
        """Write a new mark and return it. Raises ReadOnlyStore if the lock is only shared."""
        if not self.exclusive:
            raise ReadOnlyStore("marking a write under a shared lock")
        mark = struct.pack("<QQI", time.time_ns(), _count(), os.getpid()) + os.urandom(44)
        os.pwrite(self._fd, mark, 0)
        return mark


class LockFile:
    """A lock file at `path`, of `rank` among the locks of `store`; made with its first acquisition."""

    def __init__(self, path: str, *, rank: int, store: str = "") -> None:
        self.path = path
        self.rank = rank
        self.store = store

    @contextmanager
    def shared(self) -> Iterator[Held]:
        """Hold the lock together with other readers."""
        with self._held(exclusive=False, wait=True) as held:
            assert held is not None
            yield held

    @contextmanager
    def exclusive(self) -> Iterator[Held]:
        """Hold the lock alone."""
        with self._held(exclusive=True, wait=True) as held:
            assert held is not None
            yield held

    @contextmanager
    def try_exclusive(self) -> Iterator[Held | None]:
        """Hold the lock alone if nobody has it; else give None at once."""
        with self._held(exclusive=True, wait=False) as held:
            yield held

    def make(self) -> None:
        """Make the file if it is not there, so that a disk that is full later does not keep it from being locked."""
        os.close(self._open(to_write=False))

    @contextmanager
    def _held(self, *, exclusive: bool, wait: bool) -> Iterator[Held | None]:
        with _in_order(self):
            fd = self._open(to_write=exclusive)
            if fd == _NO_FILE:
                yield _Unmarked()
                return
            try:
                if not locks.lock(fd, exclusive=exclusive, wait=wait):
                    yield None
                    return
                try:
                    yield Held(fd, exclusive=exclusive)
                finally:
                    locks.unlock(fd)
            finally:
                os.close(fd)

    def _open(self, *, to_write: bool) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self.path, flags | os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            _explain(self.path, error)
            if to_write or error.errno not in (errno.EROFS, errno.EACCES):
                raise
            # Somebody else's store, or one on a read-only file system: enough for a shared lock.
            fd = os.open(self.path, flags | os.O_RDONLY)
        return _regular(self.path, fd)


class BothLocks:
    """Two lock files that are taken, and marked, as one: those of a store whose images lie in a root of their own.

    The mark that counts is that of `first` (the Go library compares no other).
    """

    def __init__(self, first: LockFile, second: LockFile) -> None:
        self._first = first
        self._second = second

    @contextmanager
    def shared(self) -> Iterator[Held]:
        """Hold both together with other readers."""
        with self._first.shared() as held, self._second.shared():
            yield held

    @contextmanager
    def exclusive(self) -> Iterator[Held]:
        """Hold both alone."""
        with self._first.exclusive() as one, self._second.exclusive() as other:
            yield _BothHeld(one, other)

    def make(self) -> None:
        """Make the files that are not there."""
        self._first.make()
        self._second.make()


class _BothHeld(Held):
    def __init__(self, first: Held, second: Held) -> None:
        super().__init__(first._fd, exclusive=True)
        self._second = second

    def record_write(self) -> bytes:
        self._second.record_write()
        return super().record_write()


class ReadersLock(LockFile):
    """The lock of a store that is only read: never made, never marked, and granted where there is no lock file.

    Such a store may lie on a read-only file system, or belong to somebody else.
    """

    @contextmanager
    def exclusive(self) -> Iterator[Held]:
        """Refuse."""
        raise ReadOnlyStore()
        yield

    try_exclusive = exclusive

    def _open(self, *, to_write: bool) -> int:  # noqa: ARG002 - it is never to write
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, PermissionError):
            return _NO_FILE
        except OSError as error:
            _explain(self.path, error)
            raise
        return _regular(self.path, fd)


class _Unmarked(Held):
    def __init__(self) -> None:
        super().__init__(-1, exclusive=False)

    def last_writer(self) -> bytes:
        return b""


def _explain(path: str, error: OSError) -> None:
    """Raise StorageError if a lock file cannot be opened because of what it is."""
    if error.errno == errno.ELOOP and os.path.islink(path):
        raise StorageError(f"lock file {path} is a symbolic link, and is not followed") from error
    if error.errno == errno.EISDIR:
        raise StorageError(f"lock file {path} is a directory") from error


def _regular(path: str, fd: int) -> int:
    """Give the descriptor back if it is that of a file, else close it and raise StorageError."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise StorageError(f"lock file {path} is {'a directory' if stat.S_ISDIR(mode) else 'not a regular file'}")
    return fd


_writes = 0
_taken: dict[int, list[LockFile]] = {}


def _count() -> int:
    global _writes  # noqa: PLW0603 - the mark has a counter of the process
    _writes += 1
    return _writes


@contextmanager
def _in_order(wanted: LockFile) -> Iterator[None]:
    """Note, for this thread, that `wanted` is taken; refuse it if a lock that it holds comes later or is the same."""
    from _thread import get_ident

    thread = get_ident()
    mine = _taken.setdefault(thread, [])
    for lock in mine:
        if lock.store == wanted.store and (
            lock.rank > wanted.rank
            or lock.path == wanted.path
            or (lock.rank == wanted.rank and wanted.rank not in _SEVERAL)
        ):
            raise LockOrder(f"{wanted.path} is asked for while {lock.path} is held in this thread")
    mine.append(wanted)
    try:
        yield
    finally:
        mine.remove(wanted)
        if not mine:
            _taken.pop(thread, None)
