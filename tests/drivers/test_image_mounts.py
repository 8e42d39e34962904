"""Images mounted so that nobody can write to them, on the drivers that can do that."""

from __future__ import annotations

import os

import pytest

import layerhold
from layerhold.errors import LayerUnknown
from tests import stores

pytestmark = pytest.mark.root


def test_an_image_of_overlay_is_mounted_read_only_and_counted_with_its_layer() -> None:
    with stores.scratch("image-mounts") as folder:
        store = layerhold.Store.open(graphroot=folder / "root", runroot=folder / "run", driver="overlay")
        layer = store.layers.create(store.layers.create())
        image = store.images.create(layer=layer)
        with image.mount() as top:
            with pytest.raises(OSError, match="Read-only file system"):
                (top / "new").write_text("")
            assert os.fspath(layer.mount()) == os.fspath(top)
            assert layer.mount_count == 2
            assert image.unmount()
        assert layer.mount_count == 0
        assert not os.path.ismount(top)


def test_an_image_without_layers_cannot_be_mounted() -> None:
    with stores.scratch("image-mounts") as folder:
        store = layerhold.Store.open(graphroot=folder / "root", runroot=folder / "run", driver="vfs")
        with pytest.raises(LayerUnknown):
            store.images.create().mount()
