"""Copying into layers that have ID maps, over what is there, and by way of links, next to Go's program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerhold.testing import trees
from tests import stores
from tests.stores import Place

pytestmark = [pytest.mark.compat, pytest.mark.root]

MAPPED = {"one": ("0:1000:1000", "0:2000:1000"), "two": ("0:3000:1000", "0:4000:1000")}
OLD = 978307200


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A store of Go's with layers `plain`, `one` and `two`, the last two with ID maps, and files beside it."""
    with stores.scratch("copying") as folder:
        place = Place(folder / "template", "vfs")
        fill(folder / "template/files")
        place.go("create-layer", "-i", "plain")
        for id, (uids, gids) in MAPPED.items():
            place.go("create-layer", "-i", id, "--uidmap", uids, "--gidmap", gids)
        yield folder / "template"


def fill(top: Path) -> None:
    for name in ("d/sub/x", "d/name", "over/.wh.kept", "d/other", "over/name/y", "over/sub", "over/other", "f"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    os.link(top / "d/name", top / "d/again")
    (top / "d/link").symlink_to("name")
    (top / "to-d").symlink_to("d")
    (top / "to-f").symlink_to("/f")
    os.mkfifo(top / "d/fifo")
    os.setxattr(top / "d/other", "user.note", b"yes")
    os.setxattr(top / "f", "user.note", b"yes")
    (top / "d/sub").chmod(0o2750)
    (top / "f").chmod(0o4711)
    for number, name in enumerate(("d", "d/sub", "d/name", "f", "d/link")):
        os.chown(top / name, 5 + number, 6 + number, follow_symlinks=False)
        os.utime(top / name, (OLD, OLD), follow_symlinks=False)


@pytest.mark.parametrize(
    "line",
    [
        "d one:/d ; one:/d two:/dd ; one:/d plain:/d ; one:/d out",
        "f one:/f ; one:/f two:/f ; one:/f plain:/f ; one:/f out",
        "d one:/d ; -o 7:8 d one:/d ; -o 7 f one:/f ; -o 7:8 one:/d two:/",
        "d one:/ ; d one:/sub ; d one:/",
        "d plain:/ ; over plain:/",
        "over plain:/d ; d plain:/d",
        "d plain:/d ; f plain:/d/link ; plain:/d/link out",
        "d plain:/d ; f plain:/d/name ; f plain:/d/sub",
        "to-d plain:/d",
        "d plain:/d ; to-d plain:/d ; plain:/d/to-d plain:/e",
        "d plain:/d ; plain:/d plain:/d ; plain:/d/name plain:/d/name",
        "d plain:/d ; plain:/d plain:/d/sub",
        "d plain:/d ; plain:/d/link/x out ; d plain:/d/link",
    ],
)
def test_copies_are_those_of_go(template: Path, line: str) -> None:
    ours, go = (copied(template, name, program, line) for name, program in (("ours", Place.ours), ("go", Place.go)))
    assert trees.differences(ours, go, ignore=["mtime_ns"]) == []
    old = {path for path, row in go.items() if row.mtime_ns == OLD * 10**9}
    assert {path for path, row in ours.items() if row.mtime_ns == OLD * 10**9} == old


def copied(template: Path, name: str, program: Callable[..., stores.Answer], line: str) -> dict[bytes, trees.Row]:
    """All trees after the copies of a line, each of which is also to fail or succeed as the other's."""
    folder = template.with_name(name)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True, copy_function=shutil.copy2, ignore=shutil.ignore_patterns("fifo"))
    shutil.rmtree(folder / "files")
    fill(folder / "files")
    place, statuses = Place(folder, "vfs"), []
    for copy in line.split(" ; "):
        words = copy.split()
        flags = words[:2] if words[0] == "-o" else []
        places = [word if ":" in word else str(folder / "files" / word) for word in words[len(flags) :]]
        statuses.append(program(place, "copy", *flags, *places, check=False).returncode)
    rows = {
        os.path.join(b"%d" % number, path): row
        for number, top in enumerate((folder / "root/vfs/dir", folder / "files"))
        for path, row in trees.rows(top).items()
    }
    marks = "".join(map(str, statuses)).encode()
    return {**rows, b"status " + marks: rows[b"0/plain"]}


def test_a_link_leads_out_of_the_layer_in_go_only(tmp_path: Path) -> None:
    """A difference that is meant (docs/compatibility.md)."""
    (tmp_path / "secret").write_text("secret")
    with stores.scratch("copying") as folder:
        place = Place(folder, "vfs")
        place.go("create-layer", "-i", "layer")
        top = folder / "root/vfs/dir/layer"
        (top / "out").symlink_to(tmp_path)
        (top / "up").symlink_to("../" * 40 + str(tmp_path)[1:])
        for link in ("out", "up"):
            assert place.ours("copy", f"layer:/{link}/secret", str(folder / "got"), check=False).returncode == 1
            assert place.go("copy", f"layer:/{link}/secret", str(folder / "got"), check=False).returncode == 0
        inside = top / str(tmp_path)[1:]
        inside.mkdir(parents=True)
        place.ours("copy", str(tmp_path / "secret"), "layer:/out/ours")
        assert (inside / "ours").read_text() == "secret"
        place.go("copy", str(tmp_path / "secret"), "layer:/out/go")
        assert sorted(os.listdir(tmp_path)) == ["go", "secret"]


def test_directories_above_a_copy_belong_to_the_container(template: Path) -> None:
    """A difference that is meant (docs/compatibility.md)."""
    ours, go = (
        copied(template, name, program, "f one:/new/f") for name, program in (("ours", Place.ours), ("go", Place.go))
    )
    assert (ours[b"0/one/new"].uid, go[b"0/one/new"].uid) == (1000, 0)
    assert ours[b"0/one/new/f"] == go[b"0/one/new/f"]
