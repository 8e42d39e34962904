"""Whiteouts: names in an archive, marks in a tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold.archive.whiteouts import Erase, OverlayMarks, is_hidden, opaque_key, opaque_of, whiteout_of
from layerhold.tree.root import Root


def nothing(_path: bytes) -> bool:
    return False


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/f").write_text("")
    (tmp_path / "d/sub/g").write_text("")
    (tmp_path / "link").symlink_to("d")
    with Root(str(tmp_path)) as opened:
        yield opened


def test_names() -> None:
    assert whiteout_of(b"a/b") == b"a/.wh.b"
    assert whiteout_of(b"b") == b".wh.b"
    assert opaque_of(b"") == b".wh..wh..opq"
    assert opaque_of(b"a") == b"a/.wh..wh..opq"
    assert opaque_key("user.overlay.") == b"user.overlay.opaque"


def test_erase_removes(root: Root, tmp_path: Path) -> None:
    assert not Erase().hide(root, b"link/f", nothing)
    assert not Erase().hide(root, b"missing", nothing)
    assert not Erase().hide(root, b"d/sub/g/below", nothing)
    assert sorted(os.listdir(tmp_path / "d")) == ["sub"]
    Erase().hide_below(root, b"link", lambda path: path == b"link/sub")
    assert os.listdir(tmp_path / "d/sub") == []
    Erase().hide(root, b"d", nothing)
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.root
def test_marks_replace_what_lower_layers_cannot_show(root: Root, tmp_path: Path) -> None:
    marks = OverlayMarks("trusted.overlay.", prior=True)
    assert marks.hide(root, b"d/f", nothing)
    assert marks.hide(root, b"d/f", nothing)
    assert marks.hide(root, b"new", nothing)
    assert marks.hide(root, b"d/sub", nothing)
    assert is_hidden((tmp_path / "d/f").lstat())
    assert stat.S_IMODE((tmp_path / "new").lstat().st_mode) == 0
    assert not marks.hide(root, b"d/sub/below/deeper", nothing)
    marks.hide_below(root, b"d/sub", nothing)
    marks.hide_below(root, b"link", nothing)
    assert os.getxattr(tmp_path / "d", "trusted.overlay.opaque") == b"y"
    assert os.listdir(tmp_path / "d") == []


@pytest.mark.root
def test_marks_do_not_replace_what_the_archive_brought(root: Root, tmp_path: Path) -> None:
    marks = OverlayMarks("trusted.overlay.", prior=False)
    for hidden, brought in ((b"d/f", b"d/f"), (b"d/sub", b"d/sub/g")):
        with pytest.raises(FileExistsError):
            marks.hide(root, hidden, brought.__eq__)
    with pytest.raises(NotADirectoryError):
        marks.hide(root, b"d/f/below", nothing)
    with pytest.raises(NotADirectoryError):
        marks.hide_below(root, b"d/f", nothing)
    marks.hide_below(root, b"d", nothing)
    assert sorted(os.listdir(tmp_path / "d")) == ["f", "sub"]


@pytest.mark.root
def test_a_directory_in_the_place_of_a_mark_is_opaque(root: Root, tmp_path: Path) -> None:
    marks = OverlayMarks("user.overlay.", prior=False)
    marks.hide(root, b"x", nothing)
    old = root.lstat(b"x")
    root.remove(b"x")
    root.mkdir(b"x")
    marks.replaced(root, b"x", old)
    assert os.getxattr(tmp_path / "x", "user.overlay.opaque") == b"y"
    marks.replaced(root, b"d", root.lstat(b"link"))
    assert os.listxattr(tmp_path / "d") == []
