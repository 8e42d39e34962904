"""Files written at once; trees removed, whatever is in them."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from layerhold.tree import files
from tests.users import OrdinaryUser


def test_write_atomic_replaces_and_sets_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_bytes(b"old")
    old = os.umask(0o077)
    try:
        info = files.write_atomic(str(path), b"new", mode=0o644)
    finally:
        os.umask(old)
    assert path.read_bytes() == b"new"
    assert (info.st_ino, info.st_mtime_ns) == (path.stat().st_ino, path.stat().st_mtime_ns)
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["layers.json"]


@pytest.mark.parametrize("call", ["write", "settle_file", "fchmod", "rename"])
def test_write_atomic_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "layers.json"
    path.write_bytes(b"old")

    def fail(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files if call == "settle_file" else os, call, fail)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["layers.json"]


def test_what_a_killed_writer_left_does_not_disturb(tmp_path: Path) -> None:
    for name in (".tmp-a0", ".tmp-a123", ".tmp-b9", "a"):
        (tmp_path / name).write_bytes(b"half")
    files.write_atomic(str(tmp_path / "a"), b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    files.sweep_temporaries(str(tmp_path), "a")
    assert sorted(os.listdir(tmp_path)) == [".tmp-b9", "a"]
    files.sweep_temporaries(str(tmp_path))
    assert os.listdir(tmp_path) == ["a"]
    files.sweep_temporaries(str(tmp_path / "missing"))


def test_make_dirs_does_not_rely_on_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        files.make_dirs(str(tmp_path / "a/b"))
        files.make_dirs(str(tmp_path / "a/b"))
    finally:
        os.umask(old)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        files.make_dirs(str(tmp_path / "file"))


def test_read_bytes(tmp_path: Path) -> None:
    assert files.read_bytes(str(tmp_path / "none")) is None
    (tmp_path / "some").write_bytes(b"x")
    assert files.read_bytes(str(tmp_path / "some")) == b"x"
    with pytest.raises(IsADirectoryError):
        files.read_bytes(str(tmp_path))


def test_disk_usage_counts_each_inode_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x" * 100)
    (tmp_path / "g").hardlink_to(tmp_path / "d/f")
    (tmp_path / "h").write_bytes(b"y" * 10)
    (tmp_path / "to-directory").symlink_to("d")
    a_deep_tree(tmp_path / "d", 1500)
    assert files.disk_usage(str(tmp_path)) == 100 + 10 + 1
    files.remove_tree(str(tmp_path / "d"))  # pytest's own clearing up cannot
    assert files.disk_usage(str(tmp_path / "none")) == 0


def a_deep_tree(top: Path, levels: int) -> None:
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_remove_tree_removes_without_following(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/link").symlink_to(tmp_path / "outside")
    (top / "dangling").symlink_to("nowhere")
    os.mkfifo(top / "a/b/pipe")
    (top / os.fsdecode(b"\xff")).mkdir()
    files.remove_tree(str(top))
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert (tmp_path / "outside/kept").exists()


def test_remove_tree_of_what_is_no_tree(tmp_path: Path) -> None:
    files.remove_tree(str(tmp_path / "none"))
    files.remove_tree(str(tmp_path / "none/none"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to("outside")
    files.remove_tree(str(tmp_path / "link"))
    assert os.listdir(tmp_path) == ["outside"]


def test_remove_tree_deeper_than_paths_stack_and_descriptors(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    a_deep_tree(top, 3000)
    files.remove_tree(str(top))
    assert not top.exists()


def test_remove_tree_wide(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in range(2000):
        (top / str(name)).mkdir(parents=True)
        (top / str(name) / "f").touch()
    files.remove_tree(str(top))
    assert not top.exists()


@pytest.mark.root
def test_remove_tree_does_not_enter_mounts(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir()
    (outside / "kept").touch()
    (top / "a/point").mkdir(parents=True)
    subprocess.run(["mount", "--bind", outside, top / "a/point"], check=True)
    try:
        with pytest.raises(OSError, match="busy") as caught:
            files.remove_tree(str(top))
        assert caught.value.errno == errno.EBUSY
        assert caught.value.filename == str(top / "a/point")
        assert (outside / "kept").exists()
    finally:
        subprocess.run(["umount", top / "a/point"], check=True)
    files.remove_tree(str(top))
    assert not top.exists()


@pytest.mark.root
def test_remove_tree_with_overlay_marks(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    os.mknod(top / "gone", 0o020000, os.makedev(0, 0))
    files.remove_tree(str(top))
    assert not top.exists()


@pytest.mark.root
def test_remove_tree_names_what_resists(tmp_path: Path) -> None:
    held = tmp_path / "top/a/b/held"
    held.parent.mkdir(parents=True)
    held.touch()
    if subprocess.run(["chattr", "+i", held], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(PermissionError) as caught:
            files.remove_tree(str(tmp_path / "top"))
        assert caught.value.filename == str(held)
    finally:
        subprocess.run(["chattr", "-i", held], check=True)


AS_A_USER = """
import os, sys
from layerhold.tree import files
os.makedirs("top/a/b/c"); os.makedirs("top/empty")
open("top/a/b/f", "w").close()
for name in ("top/a/b/c", "top/a/b", "top/a", "top/empty", "top"):
    os.chmod(name, int(sys.argv[1], 8))
files.remove_tree("top")
print(os.listdir("."))
"""


@pytest.mark.parametrize("mode", ["0", "555", "300"])
def test_remove_tree_of_an_ordinary_user(ordinary_user: OrdinaryUser, mode: str) -> None:
    assert ordinary_user.as_user([ordinary_user.python, "-c", AS_A_USER, mode]).stdout == "[]\n"
