"""Converted stores and the Go programs: what these made is converted, and what came of it they go on with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import layerhold
from layerhold.convert import convert
from layerhold.testing import trees
from tests import aufs_store, stores
from tests.aufs_store import BASE, DIFFS, IMAGE, MIDDLE, NAME
from tests.compat.test_podman import NAME as PODMANS_NAME
from tests.compat.test_podman import build_image
from tests.inputs import Input
from tests.programs import RUN_FLAGS, STORAGE_VERSIONS
from tests.stores import Place

pytestmark = [pytest.mark.root, pytest.mark.compat]


@pytest.fixture
def folder(programs: ModuleType) -> Iterator[Path]:
    with stores.scratch("convert") as folder:
        yield folder


def filled_by_go(folder: Path, driver: str, version: str) -> Place:
    """A store of Go's: two layers, an image, a container that was written to, with big data all over."""
    place = Place(folder / "old", driver)
    for id, parent in ((BASE, ""), (MIDDLE, BASE)):
        (folder / f"{id}.tar").write_bytes(DIFFS[id])
        place.go("import-layer", "-i", id, "-f", str(folder / f"{id}.tar"), *filter(None, [parent]), version=version)
    (folder / "data").write_bytes(b"some data")
    place.go("create-image", "-i", IMAGE, "-n", NAME, "-m", "text", MIDDLE, version=version)
    place.go("set-image-data", "-f", str(folder / "data"), IMAGE, "manifest", version=version)
    place.go("create-container", "-n", "box", "-m", "about it", IMAGE, version=version)
    place.go("set-container-data", "-f", str(folder / "data"), "box", "Odd key", version=version)
    directory = Path(place.go("get-container-dir", "box", version=version).stdout.strip())
    (directory / "state").write_bytes(b"of whoever runs it")
    top = Path(place.go("mount", "box", version=version).stdout.strip())
    (top / "etc/conf").write_bytes(b"third")
    (top / "etc/kept").unlink()
    (top / "usr/bin/three").write_bytes(b"#!three")
    place.go("unmount", "box", version=version)
    return place


def digests(place: Place) -> dict[str, str]:
    """The digests of the tars of layers, as Go's newest program gives them."""
    found = {}
    for id in (BASE, MIDDLE):
        out = place.folder / f"{id}.out"
        place.go("diff", "-u", "-f", str(out), id)
        found[id] = hashlib.sha256(out.read_bytes()).hexdigest()
    return found


def goes_on(place: Place) -> None:
    """Go's newest program finds the store sound, gives the same tars, mounts what was there, and adds to it."""
    assert digests(place) == {id: hashlib.sha256(DIFFS[id]).hexdigest() for id in (BASE, MIDDLE)}
    answer = place.go("check", check=False)
    assert answer.stdout + answer.stderr == ""
    with place.mounted("box", go=True) as top:
        assert (top / "etc/conf").read_bytes() == b"third"
        assert (top / "usr/bin/three").read_bytes() == b"#!three"
        assert not (top / "etc/kept").exists()
        assert not (top / "etc/gone").exists()
        assert sorted(os.listdir(top / "opt"))[:1] == ["new"] or (top / "opt/newer").exists()
    place.go("create-container", "-n", "another", NAME)
    place.go("delete-container", "box")
    assert len(place.go_json("layers")) == 3
    place.go("shutdown", "-f", check=False)


@pytest.mark.parametrize("version", STORAGE_VERSIONS)
@pytest.mark.parametrize(("old", "new"), [("vfs", "overlay"), ("overlay", "vfs")])
def test_stores_of_every_version(folder: Path, version: str, old: str, new: str) -> None:
    place = filled_by_go(folder, old, version)
    before = {kind: json.loads(place.go(kind, "--json").stdout) for kind in ("images", "containers")}
    place.go("shutdown", "-f", version=version, check=False)
    convert(place.root, new, into=folder / "new/root")
    made = Place(folder / "new", new)
    for kind, records in before.items():
        assert made.go_json(kind) == records
    assert (made.root / f"{new}-containers" / before["containers"][0]["id"] / "userdata/state").exists()
    goes_on(made)
    goes_on(place)


def test_a_container_that_go_gave_maps(folder: Path) -> None:
    place = filled_by_go(folder, "overlay", "1.64")
    maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]
    place.go("create-container", "-n", "mapped", *maps, IMAGE)
    with place.mounted("mapped", go=True) as top:
        (top / "etc/mine").write_bytes(b"1")
        os.chown(top / "etc/mine", 100005, 100006)
        before = trees.rows(top)
    place.go("shutdown", "-f", check=False)
    for new in ("vfs", "overlay"):
        convert(place.root, new, into=folder / f"{new}/root")
        made = Place(folder / new, new)
        with made.mounted("mapped", go=True) as top:
            assert trees.differences(before, trees.rows(top), ignore=["mtime_ns"]) == []
            assert (top / "etc/mine").stat().st_uid == 100005
        made.go("shutdown", "-f", check=False)


@pytest.mark.parametrize("new", ["overlay", "vfs"])
def test_a_store_that_aufs_left(folder: Path, new: str) -> None:
    root = folder / "aufs"
    aufs_store.make(root, folder / "run")
    convert(root, new, into=folder / "new/root")
    goes_on(Place(folder / "new", new))


@pytest.mark.parametrize("version", STORAGE_VERSIONS[:2])
def test_records_of_gos_older_programs_in_a_store_of_aufs(folder: Path, version: str) -> None:
    place = filled_by_go(folder, "vfs", version)
    aufs_store.of_vfs(place.root, DIFFS)
    top = next(id for id in aufs_store.layers(place.root) if id not in DIFFS)
    aufs_store.write_as_the_kernel_did(place.root / "aufs/diff" / top)
    convert(place.root, "overlay", into=folder / "new/root")
    goes_on(Place(folder / "new", "overlay"))


def test_podman_runs_an_image_of_a_store_that_aufs_left(folder: Path, rootfs: Input) -> None:
    root = folder / "aufs"
    with layerhold.Store.open(graphroot=root, runroot=folder / "run", driver="vfs") as store:
        with Path(rootfs.gz).open("rb") as tar:
            layer = store.layers.create(diff=tar)
        build_image(store, layer)
    aufs_store.of_vfs(root, {layer.id: Path(rootfs.tar).read_bytes()})
    convert(root, "overlay", into=folder / "new/root")
    made = Place(folder / "new", "overlay")
    assert PODMANS_NAME.rpartition(":")[0] in made.podman58("images").stdout
    ran = made.podman58("run", *RUN_FLAGS, PODMANS_NAME, "sh", "-c", ". /etc/os-release; echo $ID")
    assert (ran.returncode, ran.stdout) == (0, "debian\n"), ran.stderr
