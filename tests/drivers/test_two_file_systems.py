"""Images in a root of their own on another file system: nothing can be renamed from one root to the other."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold import Store
from layerhold.config import Config
from tests import stores
from tests.crash.scenarios import MAPS, layer_tar

pytestmark = pytest.mark.root


@pytest.fixture(params=["overlay", "vfs"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with stores.scratch("two") as folder:
        images = folder / "images"
        images.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(images)], check=True)
        config = Config.load(graphroot=folder / "root", runroot=folder / "run", driver=request.param)
        yield Store.open(config.replace(imagestore=str(images), idmapped_mounts=False))


def test_layers_go_from_both(store: Store) -> None:
    below = store.layers.create(diff=io.BytesIO(layer_tar(1)), writable=False)
    above = store.layers.create(below, diff=io.BytesIO(layer_tar(2)))
    assert Path(store.driver.path(below.id)).stat().st_dev != Path(store.driver.path(above.id)).stat().st_dev
    for layer, number in ((below, 1), (above, 2)):
        with layer.diff(compression=0) as tar:
            assert tar.read() == layer_tar(number)
    above.apply(io.BytesIO(layer_tar(3)))
    below.data.set("key", b"value")
    above.delete()
    below.delete()
    assert list(store.driver.ids()) == []


def test_images_and_mapped_copies_go(store: Store) -> None:
    layer = store.layers.create(diff=io.BytesIO(layer_tar(1)), writable=False)
    image = store.images.create(layer=layer, data={"manifest": b"{}"})
    box = store.containers.create(image=image, mappings=MAPS, data={"key": b"value"})
    [copy] = image.refresh().record.mapped_layers
    assert store.layers[copy].record.origin == layer.refresh().record.origin
    with box.layer.mount() as top:
        assert (top / "same").stat().st_uid == 100000
    assert store.check().ok
    box.delete()
    assert sorted(image.delete()) == sorted([copy, layer.id])
    assert list(store.driver.ids()) == []


def test_wipe_leaves_nothing(store: Store) -> None:
    layer = store.layers.create(diff=io.BytesIO(layer_tar(1)), writable=False)
    image = store.images.create(layer=layer, data={"manifest": b"{}"})
    store.containers.create(image=image)
    store.containers.create(image=image, mappings=MAPS)
    store.layers.create(layer)
    store.wipe()
    assert (len(store.layers), len(store.images), len(store.containers)) == (0, 0, 0)
    assert list(store.driver.ids()) == []
    assert store.collect_garbage() == []
