"""The tree that tars describe: a tree that was unpacked from them is as expected, and every change to it is found."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerhold.archive.apply import apply
from layerhold.archive.expected import Expected
from layerhold.archive.tar import TarReader
from layerhold.archive.whiteouts import ERASE
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.tree.root import Root

D, L, H = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
THEN = 1_600_000_000


def tar(*members: tuple[str, bytes, dict[str, Any]] | str) -> bytes:
    """A tar of names (files; directories end in a slash), or of (name, kind, fields)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one in members:
            name, kind, fields = (one, D if one.endswith("/") else b"0", {}) if isinstance(one, str) else one
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type, info.mode, info.mtime = kind, 0o755, THEN
            info.uid, info.gid = os.getuid(), os.getgid()
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info)
    return file.getvalue()


def add(tree: Expected, data: bytes) -> None:
    tree.begin()
    reader = TarReader([data])
    while (entry := reader.next()) is not None:
        tree.add(entry)


def unpacked(top: Path, *layers: bytes) -> Expected:
    """Unpack layers one over the other into `top`, and give what is expected there."""
    tree = Expected(whole=True)
    top.mkdir()
    for data in layers:
        apply(io.BytesIO(data), str(top), deletions=ERASE)
        add(tree, data)
    return tree


def differences(tree: Expected, top: Path, **options: Any) -> list[str]:
    with Root(str(top)) as root:
        return tree.differences(root, **options)


LAYERS = {
    "plain": [tar("etc/", "etc/conf", "bin/", ("bin/ash", L, {"linkname": "sh"}))],
    "no entries for directories": [tar("a/b/c"), tar("a/d", "a/b/e")],
    "directory after what is in it": [tar("a/b"), tar("a/c", ("a", D, {"mode": 0o700, "mtime": 5}))],
    "whiteouts": [tar("a/", "a/b/", "a/b/c", "d", "e/", "e/f"), tar("a/", "a/.wh.b", ".wh.d", "x/.wh.y", "e/.wh.f")],
    "whiteout spares what came along": [tar("a/", "a/old"), tar("a/new", ".wh.a", "a/.wh.new")],
    "opaque": [tar("a/", "a/b/", "a/b/c", "a/d"), tar("a/b/new", "a/.wh..wh..opq")],
    "opaque after its directory": [tar("a/", "a/b"), tar("a/", "a/.wh..wh..opq")],
    "gone and made again": [tar("a/", "a/b"), tar(".wh.a"), tar("a/", "a/c")],
    "file in place of a directory": [tar("a/", "a/b"), tar("a"), tar("a/", "a/c")],
    "hard links": [tar("a", ("b", H, {"linkname": "a", "mode": 0o600, "mtime": 7})), tar(("c", H, {"linkname": "a"}))],
    "by way of links": [
        tar("usr/", "usr/bin/", ("bin", L, {"linkname": "usr/bin"}), ("abs", L, {"linkname": "/usr/../usr/bin"})),
        tar("bin/x", "abs/y", "abs/.wh.z", ("h", H, {"linkname": "bin/x"})),
    ],
    "odd values": [tar(("old", b"0", {"mtime": -5}), ("link", L, {"linkname": "x", "mode": 0o644}))],
    "odd names": [tar("./a/", "./a//b", "/c", "./")],
    "names of AUFS": [tar(".wh..wh.plnk/x", ".wh..wh.aufs", "a")],
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_was_unpacked_is_as_expected(name: str, tmp_path: Path) -> None:
    assert differences(unpacked(tmp_path / "top", *LAYERS[name]), tmp_path / "top") == []


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_can_be_taken_back(name: str, tmp_path: Path) -> None:
    base = tar("a/", "a/b/", "a/b/c", "d", "e/", "e/f", "usr/", ("bin", L, {"linkname": "usr"}))
    tree = unpacked(tmp_path / "top", base)
    for data in LAYERS[name]:
        add(tree, data)
    for _ in LAYERS[name]:
        tree.undo()
    assert differences(tree, tmp_path / "top") == []


def touched(path: Path) -> None:
    os.utime(path, (5, 5))


TIME = f"mtime:{THEN:#x}￫0x5"
CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "time": (lambda top: touched(top / "etc/conf"), [f"+/etc/conf({TIME})", f"/etc/conf({TIME})"]),
    "time of a directory": (lambda top: touched(top / "etc"), [f"/etc({TIME})"]),
    "mode": (lambda top: (top / "etc/conf").chmod(0o600), ["+/etc/conf(mode:0755￫0600)", "/etc/conf(mode:0755￫0600)"]),
    "sticky bit": (lambda top: (top / "etc").chmod(0o1755), []),
    "removed": (lambda top: shutil.rmtree(top / "etc/sub"), ["-/etc/sub/", "-/etc/sub/file"]),
    "added": (lambda top: (top / "new/sub").mkdir(parents=True), ["+/new/", "+/new/sub/"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_found(name: str, tmp_path: Path) -> None:
    top = tmp_path / "top"
    tree = unpacked(top, tar("etc/", "etc/conf", "etc/sub/", "etc/sub/file"))
    change, expected = CHANGES[name]
    before = (top / "etc").stat()
    change(top)
    if name in ("removed",):
        os.utime(top / "etc", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert differences(tree, top) == expected


def test_a_directory_in_place_of_a_file_is_one_thing_gone_and_one_added(tmp_path: Path) -> None:
    tree = unpacked(tmp_path / "top", tar("file"))
    (tmp_path / "top/file").unlink()
    (tmp_path / "top/file").mkdir()
    assert differences(tree, tmp_path / "top") == ["+/file/", "-/file"]


def test_owners_are_those_of_the_maps_or_not_compared(tmp_path: Path) -> None:
    tree = Expected(whole=True)
    owner = {"uid": 3, "gid": 4}
    add(tree, tar(("file", b"0", owner)))
    (tmp_path / "top").mkdir()
    apply(io.BytesIO(tar("file")), str(tmp_path / "top"), deletions=ERASE)
    mappings = IdMappings(
        uids=(IdRange(container=3, host=os.getuid(), size=1),), gids=(IdRange(container=4, host=os.getgid(), size=1),)
    )
    assert differences(tree, tmp_path / "top", mappings=mappings) == []
    assert differences(tree, tmp_path / "top", owners=False) == []
    assert [text.split("￫")[0] for text in differences(tree, tmp_path / "top")] == ["+/file(uid:3", "/file(uid:3"]


def test_an_overlay_layer_hides_the_link_that_its_directory_replaces(tmp_path: Path) -> None:
    """Each layer is unpacked by itself there, so what goes by way of a lower link makes a directory of its name."""
    tree = Expected(whole=False)
    add(tree, tar("usr/", ("bin", L, {"linkname": "usr"})))
    add(tree, tar("bin/x"))
    (tmp_path / "top/usr").mkdir(parents=True)
    (tmp_path / "top/bin").mkdir()
    (tmp_path / "top/bin/x").touch()
    (tmp_path / "top/bin/x").chmod(0o755)
    os.utime(tmp_path / "top/bin/x", (THEN, THEN))
    (tmp_path / "top/usr").chmod(0o755)
    os.utime(tmp_path / "top/usr", (THEN, THEN))
    assert differences(tree, tmp_path / "top") == []
