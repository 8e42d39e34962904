"""copy_tree: everything about the files is kept, whatever way their content takes."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold.testing import trees
from layerhold.tree import copy as module
from layerhold.tree.copy import copy_tree
from layerhold.tree.files import remove_tree
from tests import stores


@pytest.fixture(params=["all ways", "_copy_in_kernel", "_copy_by_hand"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Content by the first way that works, and by each of those that work everywhere alone."""
    if request.param != "all ways":
        monkeypatch.setattr(module, "_clone", lambda *_: False)
    if request.param == "_copy_by_hand":
        monkeypatch.setattr(module, "_copy_in_kernel", lambda *_: False)
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    found = tmp_path / "src", tmp_path / "dst"
    for top in found:
        top.mkdir()
    try:
        yield found
    finally:
        for top in found:  # pytest's own clearing up does not reach the end of a deep tree
            remove_tree(str(top))


def copied(place: tuple[Path, Path]) -> Path:
    copy_tree(str(place[0]), str(place[1]))
    assert trees.differences(trees.rows(place[0]), trees.rows(place[1])) == []
    return place[1]


def test_files_directories_and_links(way: str, place: tuple[Path, Path]) -> None:
    src, _ = place
    content = random.Random(1).randbytes(3 << 20)
    (src / "big").write_bytes(content)
    (src / "empty").touch()
    (src / "directory").mkdir(mode=0o711)
    (src / "directory/inner").write_bytes(b"inner")
    (src / "directory/inner").chmod(0o4755)
    (src / "link").symlink_to("../outside")
    os.utime(src / "link", ns=(1, 2_000_000_003), follow_symlinks=False)
    os.utime(src / "big", ns=(1_000_000_001, 1_234_567_890_123_456_789))
    os.utime(src / "directory", ns=(5, 6))
    src.chmod(0o555)
    dst = copied(place)
    assert (dst / "big").read_bytes() == content
    assert dst.stat().st_mode == src.stat().st_mode
    assert (dst / "link").lstat().st_mtime_ns == 2_000_000_003
    assert (dst / "directory").stat().st_mtime_ns == 6
    src.chmod(0o755)
    dst.chmod(0o755)


def test_holes_stay_holes(way: str, place: tuple[Path, Path]) -> None:
    src, _ = place
    with open(src / "sparse", "wb") as file:
        file.truncate(1 << 30)
        file.seek(300 << 20)
        file.write(b"x" * 5000)
    with open(src / "only-a-hole", "wb") as file:
        file.truncate(1 << 20)
    copy_tree(*map(str, place))
    info = (place[1] / "sparse").stat()
    assert info.st_size == 1 << 30
    assert info.st_blocks * 512 < 1 << 20
    with open(place[1] / "sparse", "rb") as file:
        file.seek((300 << 20) - 1)
        assert file.read(5002) == b"\0" + b"x" * 5000 + b"\0"
    assert (place[1] / "only-a-hole").stat().st_blocks == 0


def test_hard_links_stay_together(place: tuple[Path, Path]) -> None:
    src, _ = place
    (src / "one").write_bytes(b"1")
    (src / "directory").mkdir()
    os.link(src / "one", src / "directory/two")
    (src / "link").symlink_to("x")
    os.link(src / "link", src / "directory/link", follow_symlinks=False)
    dst = copied(place)
    assert (dst / "one").stat().st_ino == (dst / "directory/two").stat().st_ino
    assert (dst / "link").lstat().st_ino == (dst / "directory/link").lstat().st_ino


def test_odd_names(place: tuple[Path, Path]) -> None:
    src, _ = place
    for name in (b"\xff\xfe", b"new\nline", "ä".encode(), b"x" * 255, b" "):
        Path(os.path.join(os.fsencode(src), name).decode(errors="surrogateescape")).write_bytes(name)
    copied(place)


def test_a_tree_deeper_than_paths_and_descriptors(place: tuple[Path, Path]) -> None:
    for depth, name in ((1200, "d"), (100, "n" * 200)):
        fd = os.open(place[0], os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        for other in ("a", "b"):
            with open(os.open(f"file-{other}", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "w") as file:
                file.write(other)
        os.link("file-a", "linked", src_dir_fd=fd, dst_dir_fd=fd)
        os.close(fd)
    copy_tree(*map(str, place))
    for depth, name in ((1200, "d"), (100, "n" * 200)):
        fd = os.open(place[1], os.O_RDONLY)
        for _ in range(depth):
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        assert sorted(os.listdir(fd)) == ["file-a", "file-b", "linked"]
        assert os.stat("linked", dir_fd=fd).st_nlink == 2
        os.close(fd)


def test_sockets_become_pipes(place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place[0])  # a socket's path may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        os.mkfifo("pipe", 0o640)
        copy_tree(*map(str, place))
    for name in ("socket", "pipe"):
        assert stat.S_ISFIFO((place[1] / name).stat().st_mode)
    assert stat.S_IMODE((place[1] / "pipe").stat().st_mode) == 0o640


def test_user_attributes(place: tuple[Path, Path]) -> None:
    (place[0] / "file").touch()
    try:
        os.setxattr(place[0] / "file", "user.key", b"value")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("no user attributes on this file system")
    os.setxattr(place[0], "user.top", b"\0\xff")
    copied(place)


@pytest.mark.root
def test_owners_devices_and_privileged_attributes(place: tuple[Path, Path]) -> None:
    src, _ = place
    for name in ("file", "setuid"):
        (src / name).write_bytes(b"1")
    os.chown(src / "file", 1000, 2000)
    os.chown(src / "setuid", 3, 4)
    (src / "setuid").chmod(0o6711)
    os.setxattr(src / "file", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(src / "file", "trusted.key", b"value")
    os.mknod(src / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(src / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(src / "disk", stat.S_IFBLK | 0o660, os.makedev(300, 70000))
    (src / "link").symlink_to("file")
    os.chown(src / "link", 5, 6, follow_symlinks=False)
    os.setxattr(src / "link", "trusted.key", b"value", follow_symlinks=False)
    (src / "directory").mkdir()
    os.chown(src / "directory", 7, 8)
    os.setxattr(src / "directory", "trusted.overlay.opaque", b"y")
    os.chown(src, 9, 10)
    copied(place)
    assert os.getxattr(place[1] / "directory", "trusted.overlay.opaque") == b"y"
    assert (place[1].stat().st_uid, place[1].stat().st_gid) == (9, 10)


def test_errors_name_the_file(place: tuple[Path, Path]) -> None:
    (place[0] / "directory").mkdir()
    (place[0] / "directory/file").write_bytes(b"1")
    (place[1] / "directory").mkdir()
    with pytest.raises(FileExistsError) as raised:
        copy_tree(*map(str, place))
    assert raised.value.filename == "directory"


def test_no_descriptor_is_left_open(place: tuple[Path, Path]) -> None:
    before = len(stores.descriptors())
    (place[0] / "a/b").mkdir(parents=True)
    (place[0] / "a/b/file").write_bytes(b"1")
    copied(place)
    with pytest.raises(FileExistsError):
        copy_tree(*map(str, place))
    assert len(stores.descriptors()) == before
