"""Layers that were changed while mounted: their changes, sizes and tars as Go's program gives them, to the byte.

Go's program makes and mounts the layers, ours reads them; in `podman unshare` it is also the other way round.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import stores
from tests.stores import Place
from tests.wheres import INSIDE, PlaceInside, folder_for

pytestmark = [pytest.mark.root, pytest.mark.compat]


def fill(top: Path) -> None:
    """What the lowest layer has."""
    for name in ("etc/one", "etc/deep/two", "etc/deep/er/three", "gone/sub/x", "opaque/in/y", "opaque/z", "to-file/f"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    for name in ("same", "a/b", "a-b", "deleted"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(name)
    (top / "link").symlink_to("etc/one")


def change(top: Path) -> None:
    """What the layer above changes: one of each kind."""
    with (top / "etc/one").open("a") as file:
        file.write("more")
    (top / "etc/deep/two").chmod(0o4755)
    os.chown(top / "same", 3, 4)
    for name in ("gone", "opaque", "to-file"):
        shutil.rmtree(top / name)
    (top / "opaque").mkdir()
    for name in ("opaque/new", "to-file", "a/c", "a-c", "etc/deep/er/new"):
        (top / name).write_text("new")
    (top / "link").unlink()
    (top / "link").symlink_to("etc/deep/two")


def names(top: Path) -> None:
    """Names and targets on both sides of each limit of a header."""
    for name in ("é", os.fsdecode(b"bad\xff\xfe"), "new\nline", "n" * 100, "n" * 101, "n" * 255):
        (top / name).write_text("x")
    for count in range(88, 101):
        (top / ("d" * count)).mkdir()
        (top / ("é" + "d" * (count - 2))).mkdir()
    long = top / ("p" * 99) / ("q" * 55)
    (long / ("r" * 99)).mkdir(parents=True)
    (long / ("r" * 100)).mkdir()
    (long / ("s" * 101)).write_text("")
    for number, target in enumerate(("t" * 100, "t" * 101, "ü", "t" * 99 + "/x", "t" * 97 + "///x", "/abs/..", "t/")):
        (top / f"link-{number}").symlink_to(target)


def kinds(top: Path) -> None:
    """Kinds of files, hard links, modes, owners, times, attributes."""
    for name in ("plain", "suid", "none", "owner", "cap", "notes", "before", "far", "exact"):
        (top / name).write_text("x" * 512 if name == "exact" else "x")
    (top / "big").write_bytes(bytes(range(256)) * 9000)
    os.link(top / "plain", top / "plain-again")
    (top / "link").symlink_to("t" * 120)
    os.link(top / "link", top / "link-again", follow_symlinks=False)
    os.mkfifo(top / "fifo")
    (top / "suid").chmod(0o6755)
    (top / "none").chmod(0)
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    os.chown(top / "owner", 1, 65535)
    os.setxattr(top / "cap", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.link(top / "cap", top / "cap-again")
    for key, value in {"user.b": b"1\n\0\xff", "user.a": b""}.items():
        os.setxattr(top / "notes", key, value)
    os.setxattr(top / "sticky", "user.note", b"v" * 600)
    os.utime(top / "before", ns=(0, -1))
    os.utime(top / "far", (0, 1 << 33))
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(top)  # the path of a socket may not be long
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
    finally:
        os.fchdir(here)
        os.close(here)


def kinds_of_root(top: Path) -> None:
    """What nobody can make in a user namespace."""
    os.mknod(top / "char", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    os.mknod(top / "block", stat.S_IFBLK | 0o640, os.makedev(4095, 1048575))
    for name in ("owner", "owners", "notes"):
        (top / name).write_text("x")
    os.chown(top / "owner", 2097151, 2097152)
    os.chown(top / "owners", 2097152, 4_000_000_000)
    os.setxattr(top / "notes", "trusted.note", b"t")


def kinds_aside(top: Path) -> None:
    (top / "kinds").mkdir()
    kinds(top / "kinds")


LAYERS = {
    "lowest": ("", fill),
    "changed": ("lowest", change),
    "names": ("", names),
    "names-above": ("lowest", names),
    "kinds": ("", kinds),
    "kinds-above": ("lowest", kinds_aside),
    "kinds-of-root": ("", kinds_of_root),
}
BY_OURS = " by ours"
PLACES = ["overlay", "vfs", *(f"{driver}{INSIDE}{by}" for driver in ("overlay", "vfs") for by in ("", BY_OURS))]


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    where = request.param.removesuffix(BY_OURS)
    with folder_for(where) as new:
        place = new("trees")
        for id, (parent, work) in LAYERS.items():
            if is_possible(place, id):
                layer(place, id, parent, work, go=where == request.param)
        yield place


def is_possible(place: Place, id: str) -> bool:
    return id != "kinds-of-root" or not isinstance(place, PlaceInside)


def layer(place: Place, id: str, parent: str, work: Callable[[Path], None], *, go: bool = True) -> None:
    (place.go if go else place.ours)("create-layer", "-i", id, *([parent] if parent else []))
    with place.mounted(id, go=go) as top:
        place.do(work, top)


@pytest.mark.parametrize("id", LAYERS)
def test_changes_and_sizes_are_those_that_go_finds(place: Place, id: str) -> None:
    if not is_possible(place, id):
        return
    ours, go = (run("changes", id).stdout.splitlines() for run in (place.ours, place.go))
    assert sorted(ours) == sorted(go)
    if place.driver == "overlay":  # on vfs, Go's order is random
        assert ours == go
    assert place.ours("diffsize", id).stdout == place.go("diffsize", id).stdout


@pytest.mark.parametrize("id", LAYERS)
def test_the_tar_of_a_layer_is_that_of_go(place: Place, id: str) -> None:
    if not is_possible(place, id):
        return
    ours, go = (tar(place, run, id) for run in (place.ours, place.go))
    assert [header for header, _ in ours] == [header for header, _ in go]
    assert ours == go


def test_owners_are_mapped_as_go_maps_them() -> None:
    with stores.scratch("mapped") as folder:
        place = Place(folder, "overlay")
        layer(place, "lowest", "", fill)
        place.go("create-image", "-i", "image", "lowest")
        made = place.go(
            "create-container", "-i", "box", "--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000", "image"
        )
        assert made.stdout == "box\n"
        with place.mounted("box", go=True) as top:
            (top / "etc/one").write_text("more")
            (top / "new").write_text("")
            os.chown(top / "new", 100005, 200006)
        (box,) = json.loads((place.root / "overlay-containers/containers.json").read_text())
        id = box["layer"]
        assert tar(place, place.ours, id) == tar(place, place.go, id)
        (place.root / "overlay" / id / "diff/foreign").write_text("")
        done = place.ours("diff", "-u", "-f", "/dev/null", id, check=False)
        assert (done.returncode, "host ID 0 cannot be mapped to a container ID" in done.stderr) == (1, True)


def tar(place: Place, run: Callable[..., stores.Answer], id: str) -> list[tuple[bytes, bytes]]:
    """The headers of a layer's tar and the bytes after each; whiteouts without their times: on vfs it is now."""
    out = place.folder / "out.tar"
    run("diff", "-u", "-f", str(out), id)
    data = out.read_bytes()
    found = []
    while data:
        head = bytearray(data[:512])
        after = (int(head[124:135], 8) + 511) // 512 * 512 if any(head) else 512
        if b".wh." in head[:100] and b".wh..wh." not in head[:100]:
            head[136:156] = b""
        found.append((bytes(head), data[512 : 512 + after]))
        data = data[512 + after :]
    return found
