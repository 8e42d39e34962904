"""Layerhold: the container layer, image and container store, shared with Podman, Buildah, Skopeo and CRI-O.

    with layerhold.open() as store:
        layer = store.layers.create(diff=open("root.tar.gz", "rb"))
        image = store.images.create(layer=layer, names=["localhost/demo:1"])

The names here are imported when they are first used, so `import layerhold` costs nothing. `open` is `Store.open`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layerhold.config import Config as Config
    from layerhold.containers import Container as Container
    from layerhold.errors import NotFound as NotFound
    from layerhold.errors import StorageError as StorageError
    from layerhold.ids.mappings import IdMappings as IdMappings
    from layerhold.ids.mappings import IdRange as IdRange
    from layerhold.images import Image as Image
    from layerhold.layers import Layer as Layer
    from layerhold.mounts import Mount as Mount
    from layerhold.progress import Progress as Progress
    from layerhold.settings.namespace import in_user_namespace as in_user_namespace
    from layerhold.store import Store as Store
    from layerhold.userns import AutoUserns as AutoUserns

    open = Store.open  # noqa: A001 - as in `gzip.open`, it is called by the name of the package

_HOMES = {
    "AutoUserns": "userns",
    "Config": "config",
    "Container": "containers",
    "IdMappings": "ids.mappings",
    "IdRange": "ids.mappings",
    "Image": "images",
    "Layer": "layers",
    "Mount": "mounts",
    "NotFound": "errors",
    "Progress": "progress",
    "StorageError": "errors",
    "Store": "store",
    "in_user_namespace": "settings.namespace",
}

__all__ = ["errors", "open", *_HOMES]  # noqa: PLE0604 - texts all


def __getattr__(name: str) -> object:
    import importlib

    if name == "errors":
        return importlib.import_module("layerhold.errors")
    if name == "open":
        return importlib.import_module("layerhold.store").Store.open
    if name in _HOMES:
        return getattr(importlib.import_module(f"layerhold.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'layerhold' has no attribute {name!r}")
