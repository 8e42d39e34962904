"""Layers of fuse-overlayfs: their marks read and written, and the tree that they show."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerhold.archive.apply import apply
from layerhold.archive.changes import between, walk
from layerhold.archive.fuse_layers import FuseRoot, MarksOfFuse
from layerhold.archive.override_stat import KEY
from layerhold.archive.united import United
from layerhold.archive.whiteouts import ERASE, FUSE_MARKS
from layerhold.errors import RefusedEntry
from tests import stores


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def layer(tmp_path: Path, name: str, *files: str) -> Path:
    top = tmp_path / name
    top.mkdir()
    for file in files:
        path = top / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return top


def fill(top: Path, *members: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in members:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.mode, info.uid, info.gid = 0o755, os.getuid(), os.getgid()
            archive.addfile(info)
    stream.seek(0)
    apply(stream, str(top), deletions=FUSE_MARKS)


@contextmanager
def shown(*layers: Path) -> Iterator[United]:
    with United([str(top) for top in layers], MarksOfFuse(), root=FuseRoot) as tree:
        yield tree


def seen(*layers: Path) -> list[str]:
    with shown(*layers) as tree:
        return [os.fsdecode(name) for name, _, _ in walk(tree)]


# -- reading


def test_files_hide_names(tmp_path: Path) -> None:
    base = layer(tmp_path, "base", "a", "d/one", "d/two", "e/x")
    top = layer(tmp_path, "top", ".wh.a", "d/.wh.one", "e/.wh..wh..opq", "e/y")
    assert seen(top, base) == ["d", "d/two", "e", "e/y"]


@pytest.mark.root
def test_devices_hide_names(tmp_path: Path) -> None:
    base = layer(tmp_path, "base", "a", "d/one", "d/two")
    top = layer(tmp_path, "top", "d/three")
    os.mknod(top / "a", stat.S_IFCHR, 0)
    os.mknod(top / "d/one", stat.S_IFCHR, 0)
    os.mknod(top / "d/.wh..opq", stat.S_IFCHR, 0)  # as fuse-overlayfs 1.10 leaves it
    assert seen(top, base) == ["d", "d/three", "d/two"]


@pytest.mark.root
@pytest.mark.parametrize("attribute", ["trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"])
def test_attributes_hide_what_is_below(tmp_path: Path, attribute: str) -> None:
    base = layer(tmp_path, "base", "d/one")
    top = layer(tmp_path, "top", "d/two")
    os.setxattr(top / "d", attribute, b"y")
    assert seen(top, base) == ["d", "d/two"]


def test_attributes_of_the_program_are_no_part_of_a_layer(tmp_path: Path) -> None:
    top = layer(tmp_path, "top", "a")
    for name in ("user.fuseoverlayfs.origin", "user.overlay.origin", "user.containers.override_stat", "user.own"):
        os.setxattr(top / "a", name, b"x")
    with shown(top) as tree:
        assert tree.xattrs(b"a") == {b"user.own": b"x"}


def test_overrides_hold_for_a_layer_whose_top_has_one(tmp_path: Path) -> None:
    base, top = layer(tmp_path, "base", "a", "null", "link", "d/x"), layer(tmp_path, "top", "other")
    for name, text in (
        ("a", b"7:8:4755:file"),
        ("null", b"0:0:0666:char-1-3"),
        ("link", b"5:6:0777:symlink"),
        ("d", b"1:2:0711:dir"),
    ):
        os.setxattr(base / name, KEY, text)
    (base / "link").write_bytes(b"d/x")
    with shown(top, base) as tree:
        assert tree.lstat(b"a").st_uid == os.getuid()
    os.setxattr(base, KEY, b"0:0:0755:dir")
    with shown(top, base) as tree:
        found = {name: tree.lstat(name) for name in (b"a", b"null", b"link", b"d", b"d/x", b"other")}
        assert tree.readlink(b"link") == b"d/x"
        with pytest.raises(OSError, match="Invalid argument"):
            tree.readlink(b"a")
    assert (found[b"a"].st_uid, found[b"a"].st_gid, stat.S_IMODE(found[b"a"].st_mode)) == (7, 8, 0o4755)
    assert stat.S_ISCHR(found[b"null"].st_mode)
    assert found[b"null"].st_rdev == os.makedev(1, 3)
    assert stat.S_ISLNK(found[b"link"].st_mode)
    assert stat.S_IMODE(found[b"d"].st_mode) == 0o711
    assert found[b"d/x"].st_uid == found[b"other"].st_uid == os.getuid()


def test_what_a_layer_changes(tmp_path: Path) -> None:
    base = layer(tmp_path, "base", "a", "d/one", "o/x")
    top = layer(tmp_path, "top", ".wh.a", "d/two", "o/.wh..wh..opq", "o/y")
    with shown(base) as old, shown(top, base) as new:
        found = [(os.fsdecode(change.path), "MAD"[change.kind]) for change in between(
            old, new, deletions=ERASE, lowers=None
        )]  # fmt: skip
    assert found == [
        ("/a", "D"), ("/d", "M"), ("/d/two", "A"), ("/o", "M"), ("/o/x", "D"), ("/o/y", "A"),
    ]  # fmt: skip


# -- filling


def test_whiteouts_of_an_archive_become_files(tmp_path: Path) -> None:
    top = layer(tmp_path, "top")
    fill(top, ".wh.a", "d/.wh.b", "e/", "e/.wh..wh..opq", "e/c")
    assert names(top) == [".wh.a", "d", "d/.wh.b", "e", "e/.wh..wh..opq", "e/c"]


def test_what_comes_after_its_whiteout_is_there(tmp_path: Path) -> None:
    """fuse-overlayfs would hide it: for it the mark is about the same layer, too."""
    base, top = layer(tmp_path, "base", "a", "d/old"), layer(tmp_path, "top")
    fill(top, ".wh.a", "a", ".wh.d", "d/", "d/new")
    assert names(top) == ["a", "d", "d/.wh..wh..opq", "d/new"]
    assert seen(top, base) == ["a", "d", "d/new"]


def test_a_whiteout_of_what_came_before_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedEntry, match="file exists"):
        fill(layer(tmp_path, "top"), "a", ".wh.a")


def test_a_layer_with_files_is_filled_further(tmp_path: Path) -> None:
    top = layer(tmp_path, "top", "a", "d/one", ".wh.b", ".wh.e", "o/old")
    fill(top, ".wh.a", "d/.wh.one", "b", "e/", "o/.wh..wh..opq", "o/new")
    assert names(top) == [
        ".wh.a", "b", "d", "d/.wh.one", "e", "e/.wh..wh..opq", "o", "o/.wh..wh..opq", "o/new",
    ]  # fmt: skip


@pytest.mark.root
def test_devices_that_were_there_stay_marks(tmp_path: Path) -> None:
    top = layer(tmp_path, "top")
    for name in ("a", "d", "f"):
        os.mknod(top / name, stat.S_IFCHR, 0)
    fill(top, ".wh.a", "d/", "f")
    assert names(top) == ["a", "d", "d/.wh..wh..opq", "f"]
    assert stat.S_ISCHR((top / "a").lstat().st_mode)
    assert (top / "f").is_file()


def test_times_of_directories_are_those_of_the_archive(tmp_path: Path) -> None:
    top = layer(tmp_path, "top")
    fill(top, ".wh.d", "d/", "d/new", "e/", "e/.wh..wh..opq")
    assert [(top / name).stat().st_mtime for name in "de"] == [0, 0]


def test_a_layer_that_cannot_be_read_stays_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = layer(tmp_path, "top", "file")

    def refuse(*_words: object, **_more: object) -> list[str]:
        raise OSError(errno.EIO, "broken")

    before = stores.descriptors()
    monkeypatch.setattr(os, "listxattr", refuse)
    with pytest.raises(OSError, match="broken"), United([str(top)], MarksOfFuse(), root=FuseRoot):
        pass
    assert stores.descriptors() == before
