"""Layers of the driver and of the Go programs in one home: each mounts and reads what the other made."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from layerhold.drivers.base import LayerSpec, MountOptions
from layerhold.store import Store
from tests import disks, stores
from tests.programs import STORAGE_VERSIONS
from tests.stores import Place, packed

pytestmark = [pytest.mark.root, pytest.mark.compat]


@pytest.fixture(params=["overlay", "vfs", "btrfs"])
def place(request: pytest.FixtureRequest, programs: ModuleType) -> Iterator[Place]:
    with disks.scratch_for(request.param) as folder:
        yield Place(folder, request.param)


def opened(place: Place) -> Store:
    return Store.open(graphroot=place.root, runroot=place.run, driver=place.driver)


@pytest.mark.parametrize("version", STORAGE_VERSIONS)
def test_ours_reads_and_mounts_layers_that_go_made(place: Place, version: str, tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(packed(file=b"1", gone=b"2"))
    (tmp_path / "child.tar").write_bytes(packed(more=b"3", **{".wh.gone": b""}))
    place.go("import-layer", "-i", "aaa", "-f", str(tmp_path / "base.tar"), version=version)
    place.go("import-layer", "-i", "bbb", "-f", str(tmp_path / "child.tar"), "aaa", version=version)
    place.go("create-layer", "-i", "ccc", "bbb", version=version)
    driver = opened(place).driver
    assert sorted(driver.ids()) == ["aaa", "bbb", "ccc"]
    for id in ("bbb", "ccc"):
        with driver.contents(id, against=None) as contents:
            assert sorted(os.listdir(contents.path)) == ["file", "more"]
    path = driver.mount("ccc", MountOptions())
    try:
        assert sorted(os.listdir(path)) == ["file", "more"]
        (Path(path) / "file").unlink()
    finally:
        driver.unmount("ccc")
    assert "D" in place.go("changes", "ccc", version=version).stdout
    assert sorted(os.listdir(path)) in ([], ["more"])


@pytest.mark.parametrize("version", STORAGE_VERSIONS)
def test_go_mounts_layers_that_ours_made(place: Place, version: str) -> None:
    store = opened(place)
    base = store.layers.create(diff=io.BytesIO(packed(file=b"1", gone=b"2")), id="aaa", names=["base"])
    child = store.layers.create(base, diff=io.BytesIO(packed(more=b"3", **{".wh.gone": b""})), id="bbb")
    store.layers.create(child, id="ccc")
    path = Path(place.go("mount", "ccc", version=version).stdout.strip())
    assert sorted(os.listdir(path)) == ["file", "more"]
    assert store.driver.is_mounted("ccc")
    assert store.driver.mount("ccc", MountOptions()) == str(path)
    place.go("unmount", "ccc", version=version)
    assert place.driver != "overlay" or not store.driver.is_mounted("ccc")
    path = Path(store.driver.mount("ccc", MountOptions()))
    try:
        assert sorted(os.listdir(path)) == ["file", "more"]
    finally:
        store.driver.unmount("ccc")
    place.go("create-layer", "-i", "ddd", "ccc", version=version)
    assert sorted(store.driver.ids()) == ["aaa", "bbb", "ccc", "ddd"]
    place.go("delete-layer", "ddd", version=version)
    assert sorted(store.driver.ids()) == ["aaa", "bbb", "ccc"]


def test_go_finds_nothing_wrong(place: Place) -> None:
    store = opened(place)
    base = store.layers.create(diff=io.BytesIO(packed(file=b"1")), id="aaa")
    store.layers.create(base, diff=io.BytesIO(packed(more=b"3")), id="bbb")
    answer = place.go("check")
    assert answer.stdout + answer.stderr == ""


def test_go_and_ours_use_each_others_answers(programs: ModuleType) -> None:
    options = ["overlay.mountopt=nodev,metacopy=on"]
    with stores.scratch("driver") as folder:
        place = Place(folder, "overlay", options)
        files = place.run / "overlay"
        place.go("status")
        of_go = {name: (files / name).stat().st_ino for name in os.listdir(files)}
        ours = dict(
            Store.open(graphroot=place.root, runroot=place.run, driver="overlay", options=options).driver.describe()
        )
        assert {name: (files / name).stat().st_ino for name in os.listdir(files)} == of_go
        answer = place.go("status")
        lines = (answer.stdout + answer.stderr).splitlines()
        said = dict(line.split(": ", 1) for line in lines if ": " in line)
        assert {key: said[key] for key in ours} == ours
        for name in os.listdir(files):
            (files / name).unlink()
        Store.open(graphroot=place.root, runroot=place.run, driver="overlay", options=options).driver.describe()
        assert set(os.listdir(files)) == set(of_go)


def test_what_metacopy_left_out_is_zeros_for_go_and_the_files_for_ours(programs: ModuleType) -> None:
    """Without the option, with which a container of Go's was mounted."""
    with stores.scratch("driver") as folder:
        place, plain = (Place(folder, "overlay", options) for options in (["overlay.mountopt=metacopy=on"], []))
        (folder / "base.tar").write_bytes(packed(file=b"1" * 5000))
        place.go("import-layer", "-i", "aaa", "-f", str(folder / "base.tar"))
        place.go("create-layer", "-i", "bbb", "aaa")
        path = Path(place.go("mount", "bbb").stdout.strip())
        (path / "file").chmod(0o600)
        place.go("unmount", "bbb")
        plain.go("diff", "-u", "-f", str(folder / "diff"), "bbb")
        with opened(plain).layers["bbb"].diff() as stream:
            ours = io.BytesIO(stream.read())
        for archive, content in ((ours, b"1"), (io.BytesIO((folder / "diff").read_bytes()), b"\0")):
            with tarfile.open(fileobj=archive) as members:
                file = members.extractfile("file")
                assert file is not None
                assert file.read() == content * 5000


def test_go_leaves_alone_what_ours_has_in_the_making(place: Place) -> None:
    store = opened(place)
    with store.driver.building("aaa", None, LayerSpec()) as build:
        (Path(build.contents.path) / "file").touch()
        place.go("layers")
        place.go("create-layer", "-i", "bbb")
        assert (Path(build.contents.path) / "file").exists()


def test_go_sweeps_what_ours_left(place: Place) -> None:
    store = opened(place)
    aside = Path(store.driver.home) / "tempdirs"
    (aside / "temp-dir-123/0-addition").mkdir(parents=True)
    (aside / "lock-123").touch()
    place.go("create-layer", "-i", "aaa")
    if place.driver == "btrfs":  # where Go's program knows no places aside, and leaves them to us
        store.driver.sweep()
    assert os.listdir(aside) == []
