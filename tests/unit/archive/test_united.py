"""The tree that several layers show, read without a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerhold.archive import united
from layerhold.archive.changes import walk
from layerhold.archive.united import United, opened
from layerhold.archive.whiteouts import MarksOfAufs, MarksOfOverlay
from layerhold.tree.root import Root


def layers(folder: Path, *trees: dict[str, bytes | None]) -> United:
    """Layers, nearest first, of files and directories (None)."""
    paths = []
    for number, tree in enumerate(trees):
        top = folder / str(number)
        top.mkdir()
        for name, content in tree.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(content)
        paths.append(str(top))
    return United(paths, MarksOfAufs())


@pytest.mark.parametrize(
    ("trees", "shown"),
    [
        (({"a": b""}, {"b": b""}), {"a", "b"}),
        (({".wh.a": b""}, {"a": b"", "b": b""}), {"b"}),
        (({}, {".wh.d": b""}, {"d/a": b""}), set()),
        (({"d/new": b""}, {".wh.d": b""}, {"d/a": b""}), {"d", "d/new"}),
        (({".wh.d": b"", "d/new": b""}, {"d/a": b""}), {"d", "d/new"}),
        (({"d/.wh..wh..opq": b"", "d/new": b""}, {"d/a": b""}), {"d", "d/new"}),
        (({"d/new": b""}, {"d/.wh..wh..opq": b"", "d/mid": b""}, {"d/a": b""}), {"d", "d/mid", "d/new"}),
        (({"d": b"a file"}, {"d/a": b""}), {"d"}),
        (({"d/new": b""}, {"d": b"a file"}, {"d/a": b""}), {"d", "d/new"}),
        (({"d/e/.wh.x": b""}, {"d/e/x": b"", "d/e/y": b""}), {"d", "d/e", "d/e/y"}),
        (({".wh..wh.plnk/1.2": b"", ".wh..wh.aufs": b"", "a": b""}, {"b": b""}), {"a", "b"}),
        (({"n" * 255: b""}, {"m" * 255: b""}), {"n" * 255, "m" * 255}),
    ],
)
def test_what_is_shown(tmp_path: Path, trees: tuple[dict[str, bytes | None], ...], shown: set[str]) -> None:
    with layers(tmp_path, *trees) as tree:
        found = [os.fsdecode(path) for path, _, _ in walk(tree)]
        assert set(found) == shown
        assert len(found) == len(shown)
        assert all(tree.has(os.fsencode(path)) for path in shown)


def test_files_are_those_of_the_nearest_layer(tmp_path: Path) -> None:
    with layers(tmp_path, {"a": b"near"}, {"a": b"far", "d/b": b"only there"}) as tree:
        for path, content in ((b"a", b"near"), (b"d/b", b"only there")):
            fd = tree.open_file(path)
            assert os.read(fd, 100) == content
            os.close(fd)
        (tmp_path / "1/d/link").symlink_to("target")
    with United([str(tmp_path / "0"), str(tmp_path / "1")], MarksOfAufs()) as tree:
        assert tree.readlink(b"d/link") == b"target"
        assert tree.lstat(b"a").st_size == 4
        assert tree.lstat(b"").st_ino == (tmp_path / "0").stat().st_ino
        assert tree.xattrs(b"a") == {}


@pytest.mark.parametrize("path", [b"missing", b"d/gone", b"missing/a", b"a/below a file"])
def test_what_is_not_there(tmp_path: Path, path: bytes) -> None:
    with layers(tmp_path, {"a": b"", "d/.wh.gone": b""}, {"d/gone": b""}) as tree:
        assert not tree.has(path)
        with pytest.raises(FileNotFoundError):
            tree.lstat(path)


@pytest.mark.parametrize(
    ("path", "resolved", "followed"),
    [
        (b"", b"", b""),
        (b"d/f", b"d/f", b"d/f"),
        (b"to-d", b"to-d", b"d"),
        (b"to-d/f", b"d/f", b"d/f"),
        (b"d/up/to-d/f", b"d/f", b"d/f"),
        (b"d/../../d/./f", b"d/f", b"d/f"),
        (b"to-to/f", b"d/f", b"d/f"),
        (b"d/to-f", b"d/to-f", b"d/f"),
        (b"missing/x", b"missing/x", None),
    ],
)
def test_links_are_followed_inside(tmp_path: Path, path: bytes, resolved: bytes, followed: bytes | None) -> None:
    with layers(tmp_path, {"d": None}, {"d/f": b"", "e": None}):
        for name, target in (("1/to-d", "/d"), ("0/to-to", "to-d"), ("0/d/up", "../.."), ("1/d/to-f", "../to-d/f")):
            (tmp_path / name).symlink_to(target)
        (tmp_path / "0/loop").symlink_to("loop")
    with United([str(tmp_path / "0"), str(tmp_path / "1")], MarksOfAufs()) as tree:
        assert tree.resolved(path) == resolved
        if followed is None:
            with pytest.raises(FileNotFoundError):
                tree.follow(path)
        else:
            assert tree.follow(path) == followed
        for look in (tree.follow, tree.resolved):
            with pytest.raises(OSError, match="Too many levels"):
                look(b"loop/x")


def test_only_the_directories_of_a_walk_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(united, "_KEPT", 2)
    names: dict[str, bytes | None] = {f"d{number}/e/f{number}": b"" for number in range(9)}
    with layers(tmp_path, {}, names) as tree:
        found = [path for path, is_directory, _ in walk(tree) if not is_directory and tree.lstat(path)]
        assert len(found) == 9
        assert len(tree._known) <= 3


def test_nothing_stays_open_when_a_layer_is_missing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError), United([str(tmp_path / "there"), str(tmp_path / "gone")], MarksOfAufs()):
        pass
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.root
def test_layers_of_overlay_can_be_read_so_too(tmp_path: Path) -> None:
    with layers(tmp_path, {"d/new": b""}, {"d/a": b"", "b": b""}):
        os.mknod(tmp_path / "0/b", 0o20000, 0)
        os.setxattr(tmp_path / "0/d", "trusted.overlay.opaque", b"y")
    paths = [str(tmp_path / "0"), str(tmp_path / "1")]
    with United(paths, MarksOfOverlay("trusted.overlay.")) as tree:
        assert [path for path, _, _ in walk(tree)] == [b"d", b"d/new"]


def test_a_directory_is_a_tree_by_itself(tmp_path: Path) -> None:
    with opened(str(tmp_path)) as tree:
        assert isinstance(tree, Root)
