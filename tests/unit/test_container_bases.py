"""What containers with ID maps stand on: the image's top, a copy that is kept, or one of their own."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerhold
from layerhold import IdMappings, IdRange
from layerhold.errors import ImageUnknown, NoAvailableIDs, StorageError
from layerhold.ids import subids
from layerhold.testing import trees
from layerhold.userns import AutoUserns
from tests import stores

pytestmark = pytest.mark.root

WAYS = {"vfs": "copy", "overlay": "at mount", "overlay-copied": "copy"}


def maps(first: int, size: int = 65536) -> IdMappings:
    span = (IdRange(container=0, host=first, size=size),)
    return IdMappings(uids=span, gids=span)


def a_tar(owners: dict[str, int], passwd: bytes = b"") -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, owner in owners.items():
            info = tarfile.TarInfo(name)
            info.uid = info.gid = owner
            info.size = len(passwd)
            archive.addfile(info, io.BytesIO(passwd))
    file.seek(0)
    return file


def opened(folder: Path, kind: str, **settings: object) -> layerhold.Store:
    driver, _, copied = kind.partition("-")
    config = layerhold.Config.load(graphroot=folder / "root", runroot=folder / "run", driver=driver)
    return layerhold.open(config.replace(idmapped_mounts=not copied, **settings))


@pytest.fixture(params=WAYS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    with stores.scratch("bases") as path:
        yield path


@pytest.fixture
def store(kind: str, folder: Path) -> layerhold.Store:
    store = opened(folder, kind)
    layer = store.layers.create(diff=a_tar({"root": 0, "user": 1000}), metadata="words")
    store.images.create(layer=layer, names=["image"])
    return store


def owners(store: layerhold.Store, id: str) -> dict[str, int]:
    with store.mount(id) as root:
        return {name: (root / name).stat().st_uid for name in sorted(os.listdir(root))}


def test_one_copy_for_all_with_the_same_maps(store: layerhold.Store, kind: str) -> None:
    first = store.containers.create(image="image", mappings=maps(100_000))
    second = store.containers.create(image="image", mappings=maps(100_000))
    other = store.containers.create(image="image", mappings=maps(300_000))
    plain = store.containers.create(image="image")
    copies = store.images["image"].record.mapped_layers
    assert len(copies) == (0 if WAYS[kind] == "at mount" else 2)
    assert first.layer.parent_id == second.layer.parent_id
    assert owners(store, first.id) == owners(store, second.id) == {"root": 100_000, "user": 101_000}
    assert owners(store, other.id) == {"root": 300_000, "user": 301_000}
    assert owners(store, plain.id) == {"root": 0, "user": 1000}
    for copy in copies:
        record = store.layers[copy].record
        assert (record.metadata, record.names, record.parent) == ("words", (), "")
        with store.layers[copy].diff() as tar:
            assert tar.read() == a_tar({"root": 0, "user": 1000}).read()
    assert store.check().ok
    for container in store.containers:
        container.delete()
    assert len(store.images["image"].delete()) == 1 + len(copies)
    assert list(store.driver.ids()) == []


def test_an_image_of_another_store_gets_no_copy(store: layerhold.Store, kind: str, folder: Path) -> None:
    own = opened(folder / "own", kind, additional_image_stores=(store.config.graphroot,))
    container = own.containers.create(image="image", mappings=maps(100_000))
    assert own.containers.plan(image="image", mappings=maps(1)).way == WAYS[kind].replace("copy", "own copy")
    assert owners(own, container.id) == {"root": 100_000, "user": 101_000}
    assert [change.path for change in container.layer.changes()] == []
    with container.layer.mount() as root:
        (root / "new").touch()
        os.chown(root / "new", 100_005, 100_005)
    assert [change.path for change in container.layer.changes()] == [b"/new"]
    assert (len(store.layers), len(own.layers)) == (1, 2)
    container.delete()
    assert len(own.layers) == 1


def test_an_owner_without_a_map(store: layerhold.Store, kind: str) -> None:
    if WAYS[kind] == "at mount":
        return  # the kernel shows such files as nobody's
    before = files_of(store)
    with pytest.raises(StorageError, match='"user": container ID 1000 cannot be mapped'):
        store.containers.create(image="image", mappings=maps(100_000, 1000))
    assert files_of(store) == before
    assert (len(store.layers), len(store.containers)) == (1, 0)


def files_of(store: layerhold.Store) -> dict[bytes, trees.Row]:
    return {name: row for name, row in trees.rows(Path(store.driver.home)).items() if name != b"tempdirs"}


def test_what_is_not_there(store: layerhold.Store) -> None:
    with pytest.raises(ImageUnknown):
        store.containers.create(image="none", mappings=maps(1))
    with pytest.raises(ImageUnknown):
        store.containers.plan(image="none")


def test_ids_that_nobody_else_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = (IdRange(container=0, host=500_000, size=4000),)
    monkeypatch.setattr(subids, "subuids_of", lambda _name: ranges)
    monkeypatch.setattr(subids, "subgids_of", lambda _name: ranges)
    store = opened(folder, "vfs")
    passwd = b"root:x:0:0::/:/bin/sh\nlast:x:1499:10::/:/bin/sh\n"
    layer = store.layers.create(diff=a_tar({"etc/passwd": 0}, passwd))
    store.images.create(layer=layer, names=["image"])
    made = [store.containers.create(image="image", mappings=AutoUserns()) for _ in range(2)]
    made.append(store.containers.create(image="image", mappings=AutoUserns(size=1000)))
    found = [container.record.mappings for container in made]
    assert found == [maps(500_000, 1500), maps(501_500, 1500), maps(503_000, 1000)]
    with pytest.raises(NoAvailableIDs):
        store.containers.create(image="image", mappings=AutoUserns(size=1))
    made[1].delete()
    again = store.containers.create(image="image", mappings=AutoUserns(size=1200))
    assert again.record.mappings == maps(501_500, 1200)
    assert owners(store, again.id) == {"etc": 501_500}
