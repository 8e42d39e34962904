"""Containers with ID maps, made by several processes at once: no deadlock, no ID twice, no copy that nobody has."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import layerhold
from layerhold.ids import subids
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.userns import AutoUserns
from tests import programs
from tests.compat.test_mappings import MAPS, owners_tar
from tests.stores import QUIET, Place, mounts_below

pytestmark = [pytest.mark.root]

EACH, AUTO = 4, 12  # containers of each process
OURS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import layerhold
from layerhold.ids.mappings import IdMappings, IdRange

root, run, driver, count, *hosts = sys.argv[1:]
with layerhold.Store.open(graphroot=root, runroot=run, driver=driver) as store:
    for host in hosts:
        uids, gids = (tuple([IdRange(container=0, host=int(start), size=65536)]) for start in host.split(":"))
        for _ in range(int(count)):
            store.containers.create(image="image", mappings=IdMappings(uids=uids, gids=gids))
"""
GO = """
set -eu
count=$1; shift
for number in $(seq $count); do "$@" image; done
"""
COPIED = {"_CONTAINERS_OVERLAY_DISABLE_IDMAP": "yes"}


def make(place: Place) -> None:
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver=place.driver) as store:
        base = store.layers.create(diff=io.BytesIO(owners_tar()))
        store.images.create(layer=store.layers.create(base), names=["image"])


@pytest.mark.compat
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_the_same_new_maps_at_once(store_dir: Path, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of ours and two of Go's: who comes second takes the copy that is there, or keeps another one."""
    for name, value in (QUIET | COPIED).items():
        monkeypatch.setenv(name, value)
    place = Place(store_dir, driver)
    make(place)
    go = [programs.storage(), *place.flags, "create-container", *MAPS.split()]
    ours = [sys.executable, "-c", OURS, str(place.root), str(place.run), driver, str(EACH), "100000:200000"]
    makers = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for words in (ours, ours, ["bash", "-c", GO, "-", str(EACH), *go], ["bash", "-c", GO, "-", str(EACH), *go])
    ]
    failures = [maker.communicate(timeout=120)[1] for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * len(makers), failures
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver=driver) as store:
        copies = store.images["image"].record.mapped_layers
        assert len(store.containers) == 4 * EACH
        assert 1 <= len(copies) <= 4
        assert {box.layer.parent_id for box in store.containers} <= set(copies)
        assert len(store.layers) == 2 + len(copies) + 4 * EACH
        assert store.check(unreferenced_for=0).ok
        listed = place.go_json("containers")
        assert {box["id"] for box in listed} == {box.id for box in store.containers}
        for box in store.containers:
            box.delete()
        store.images["image"].delete()
        assert len(store.layers) == 0


def test_several_maps_at_once_make_one_copy_of_each(store_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    place = Place(store_dir, "vfs")
    make(place)
    hosts = ["100000:100000", "300000:300000", "500000:500000"]
    words = [sys.executable, "-c", OURS, str(place.root), str(place.run), "vfs", "2"]
    makers = [subprocess.Popen([*words, *hosts[turn:], *hosts[:turn]], stderr=subprocess.PIPE) for turn in range(3)]
    failures = [maker.communicate(timeout=120)[1] for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0, 0], failures
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver="vfs") as store:
        assert len(store.images["image"].record.mapped_layers) == 3
        assert len(store.layers) == 2 + 3 + len(store.containers)


def test_chosen_ids_never_overlap(store_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes take all IDs that there are, each one once."""
    there = (IdRange(container=0, host=1_000_000, size=4 * AUTO * 100),)
    monkeypatch.setattr(subids, "subuids_of", lambda _user: there)
    monkeypatch.setattr(subids, "subgids_of", lambda _group: there)
    place = Place(store_dir, "vfs")
    make(place)
    children = [child for child in (_fork(place, AUTO) for _ in range(4)) if child]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver="vfs") as store:
        assert len(store.containers) == 4 * AUTO
        for side in ("uids", "gids"):
            spans = [span for box in store.containers for span in getattr(box.record.mappings, side)]
            taken = [id for span in spans for id in range(span.host, span.host + span.size)]
            assert len(taken) == len(set(taken)) == there[0].size
        with pytest.raises(layerhold.errors.NoAvailableIDs):
            store.containers.create(mappings=AutoUserns(size=1))
        next(iter(store.containers)).delete()
        assert store.containers.create(mappings=AutoUserns(size=100)).record.mappings != IdMappings()


def _fork(place: Place, count: int) -> int:
    """Start a process that makes containers, each with 100 IDs of its own."""
    child = os.fork()
    if child:
        return child
    try:
        with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver=place.driver) as store:
            for _ in range(count):
                store.containers.create(mappings=AutoUserns(size=100))
        os._exit(0)
    finally:
        os._exit(1)


def test_several_readers_of_a_mapped_layer(store_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own mounts of the layers below: they hold the same, shared lock."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    place = Place(store_dir, "overlay")
    make(place)
    spans = (IdRange(container=0, host=100000, size=65536),)
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver="overlay") as store:
        box = store.containers.create(image="image", mappings=IdMappings(uids=spans, gids=spans))
        other = store.layers.create()

        def read(_number: int) -> int:
            return len(box.layer.changes(other))

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(read, range(40))) == {read(0)}
    assert mounts_below(place.folder) == [str(place.root / "overlay")]
