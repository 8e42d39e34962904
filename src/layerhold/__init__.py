"""Layerhold: the container layer, image and container store, shared with Podman, Buildah, Skopeo and CRI-O.

    with layerhold.Store.open() as store:
        layer = store.layers.create(diff=open("root.tar.gz", "rb"))
        image = store.images.create(layer=layer, names=["localhost/demo:1"])

The names here are imported when they are first used, so `import layerhold` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layerhold.config import Config as Config
    from layerhold.containers import Container as Container
    from layerhold.errors import NotFound as NotFound
    from layerhold.errors import StorageError as StorageError
    from layerhold.images import Image as Image
    from layerhold.layers import Layer as Layer
    from layerhold.layers import Mount as Mount
    from layerhold.store import Store as Store

_HOMES = {
    "Config": "config",
    "Container": "containers",
    "Image": "images",
    "Layer": "layers",
    "Mount": "layers",
    "Store": "store",
}

__all__ = ["Config", "Container", "Image", "Layer", "Mount", "NotFound", "StorageError", "Store", "errors"]


def __getattr__(name: str) -> object:
    import importlib

    if name == "errors":
        return importlib.import_module("layerhold.errors")
    if name in _HOMES or name in ("NotFound", "StorageError"):
        return getattr(importlib.import_module(f"layerhold.{_HOMES.get(name, 'errors')}"), name)
    raise AttributeError(f"module 'layerhold' has no attribute {name!r}")
