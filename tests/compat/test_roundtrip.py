"""Real layers in and out, by ours and by Go's, byte for byte, and the trees that they make on the way."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layerhold.testing.trees import Row, differences, rows
from tests import inputs, stores
from tests.inputs import Input
from tests.stores import Place
from tests.wheres import INSIDE, PlaceInside, folder_for

pytestmark = [pytest.mark.root, pytest.mark.compat, pytest.mark.rootfs]
BIG = ("rootfs", "small")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record(place: Place, ref: str) -> dict[str, Any]:
    """The record of a layer, as our command prints it."""
    found: list[dict[str, Any]] = json.loads(place.ours("layer", "-j", ref).stdout)
    return found[0]


@pytest.fixture(scope="module", params=["overlay", "vfs"])
def places(request: pytest.FixtureRequest) -> Iterator[tuple[Place, Place]]:
    """Two stores with the same layers in them, brought in by ours and by Go's."""
    with stores.scratch("roundtrip") as folder:
        ours, go = Place(folder / "ours", request.param), Place(folder / "go", request.param)
        for name in BIG:
            layer = getattr(inputs, name)()
            ours.ours("import-layer", "-n", name, "-f", str(layer.gz))
            go.go("import-layer", "-n", name, "-f", str(layer.tar))
        yield ours, go


@pytest.fixture(scope="module", params=BIG)
def layer(request: pytest.FixtureRequest) -> tuple[str, Input]:
    return request.param, getattr(inputs, request.param)()


@pytest.fixture(scope="module")
def extracted(layer: tuple[str, Input]) -> Iterator[dict[bytes, Row]]:
    """What GNU tar makes of the layer."""
    with stores.scratch("extracted") as folder:
        yield rows(stores.gnu_extract(Path(layer[1].tar), folder / "tree"))


def test_each_gives_back_what_the_other_brought_in(places: tuple[Place, Place], layer: tuple[str, Input]) -> None:
    name, files = layer
    out = places[0].folder / "out.tar"
    for place in places:
        for run in (place.ours, place.go):
            run("diff", "-u", "-f", str(out), name)
            assert sha256(out) == sha256(Path(files.tar))


@pytest.mark.parametrize("kind", ["tar", "zst"])
def test_the_other_compressions(places: tuple[Place, Place], layer: tuple[str, Input], kind: str) -> None:
    """The gzip form is what `places` has; plain and zstd give the same layer."""
    name, files = layer
    place = places[0]
    place.ours("import-layer", "-n", f"{name}-{kind}", "-f", str(getattr(files, kind)))
    one, other = (record(place, ref) for ref in (name, f"{name}-{kind}"))
    assert (one["diff-digest"], one["diff-size"]) == (other["diff-digest"], other["diff-size"])
    assert other["compressed-diff-digest"] == "sha256:" + sha256(Path(getattr(files, kind)))
    out = place.folder / "out.tar"
    place.go("diff", "-u", "-f", str(out), f"{name}-{kind}")
    assert sha256(out) == sha256(Path(files.tar))
    place.ours("delete-layer", f"{name}-{kind}")


def test_the_tree_is_what_gnu_tar_makes(
    places: tuple[Place, Place], layer: tuple[str, Input], extracted: dict[bytes, Row]
) -> None:
    ours, go = places
    with ours.mounted(layer[0]) as root:
        mine = rows(root)
    with go.mounted(record(go, layer[0])["id"], go=True) as root:
        theirs = rows(root)
    # Go leaves the root itself as it was made; GNU tar leaves it to whoever made it, where the tar has no entry for it.
    roots = [rows.pop(b"") for rows in (mine, theirs)]
    assert len(mine) > 1000
    assert not differences(mine, {path: row for path, row in extracted.items() if path})
    assert not differences(mine, theirs)
    assert {row.kind for row in roots} == {"dir"}


def test_tar_split_holds_no_content(places: tuple[Place, Place], layer: tuple[str, Input]) -> None:
    ours = places[0]
    id = record(ours, layer[0])["id"]
    with gzip.open(ours.root / f"{ours.driver}-layers/{id}.tar-split.gz") as lines:
        rows = [json.loads(line) for line in lines]
    files = [row for row in rows if row["type"] == 1]
    raw = sum(len(base64.b64decode(row["payload"] or "")) for row in rows if row["type"] == 2)
    assert all(len(base64.b64decode(row["payload"] or "")) in (0, 8) for row in files)
    content = sum(row.get("size", 0) for row in files)
    assert raw + content == Path(layer[1].tar).stat().st_size
    assert raw < 2600 * len(files) + 20480  # a header, its PAX records, the padding of the file before


def test_a_diff_without_tar_split_gives_the_same_tree(
    places: tuple[Place, Place], layer: tuple[str, Input], extracted: dict[bytes, Row]
) -> None:
    ours = places[0]
    id = record(ours, layer[0])["id"]
    split = ours.root / f"{ours.driver}-layers/{id}.tar-split.gz"
    aside = split.rename(split.with_suffix(".aside"))
    try:
        with stores.scratch("generated") as folder:
            ours.ours("diff", "-u", "-f", str(folder / "out.tar"), id)
            again = rows(stores.gnu_extract(folder / "out.tar", folder / "tree"))
    finally:
        aside.rename(split)
    assert not differences(seconds(again), seconds(extracted))


def seconds(rows: dict[bytes, Row]) -> dict[bytes, Row]:
    """Cut times to seconds, as a tar that is written anew has them; it has no entry for the root."""
    return {path: row._replace(mtime_ns=row.mtime_ns // 10**9) for path, row in rows.items() if path}


# Go cannot give back a sparse file as it came, nor a file that it unpacked by way of an absolute link.
NOT_BACK_FROM_GO = frozenset({"pax-sparse", "merged-usr"})
# These have owners that a user's namespace does not: each program refuses them.
NOT_IN_A_NAMESPACE = frozenset({"base-256", "pax-long"})


@pytest.fixture(scope="module", params=["overlay", "vfs", "overlay" + INSIDE, "vfs" + INSIDE])
def new(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Place]]:
    """What makes a store of a name, for root or in `podman unshare`."""
    with folder_for(request.param) as new:
        yield new


@pytest.mark.parametrize("name", sorted(inputs.odd().keys() - inputs.ODD_NOT_FOR_GO))
def test_odd_archives_are_the_same_to_both(new: Callable[[str], Place], name: str) -> None:
    """Over a base layer: the same tree, and the same bytes out again, by both programs from both stores."""
    odd = inputs.odd()
    trees = []
    began = time.time_ns()
    for who in ("ours", "go"):
        place = new(f"{who}-{name}")
        run = place.ours if who == "ours" else place.go
        run("import-layer", "-i", "base", stdin=odd["plain"])
        if name in NOT_IN_A_NAMESPACE and isinstance(place, PlaceInside):
            assert run("import-layer", "-i", "odd", "base", stdin=odd[name], check=False).returncode == 1
            continue
        run("import-layer", "-i", "odd", "base", stdin=odd[name])
        out = place.folder / "out.tar"
        for read in (place.ours, place.go):
            if name in NOT_BACK_FROM_GO and not (who == "ours" and read == place.ours):
                continue
            read("diff", "-u", "-f", str(out), "odd")
            assert out.read_bytes() == odd[name]
        with place.mounted("odd", go=who == "go") as root:
            trees.append(of_the_archive(place.do(rows, root), began))
    assert not trees or not differences(*trees)


def of_the_archive(rows: dict[bytes, Row], began: int) -> dict[bytes, Row]:
    """Leave out the root, and the times of directories for which an archive has no entry."""
    return {path: row._replace(mtime_ns=min(row.mtime_ns, began)) for path, row in rows.items() if path}
