"""Big data of layers, images and containers, and the directories of images and containers."""

from __future__ import annotations

import os

from layerhold.cli import output
from layerhold.errors import LayerUnknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from layerhold.cli.flags import Given
    from layerhold.collection import Collection
    from layerhold.errors import NotFound
    from layerhold.store import Store

    Code = Callable[[Store, Sequence[str], Given], int]


def _layers(store: Store) -> Collection[Any, Any]:
    return store.layers


def _images(store: Store) -> Collection[Any, Any]:
    return store.images


def _containers(store: Store) -> Collection[Any, Any]:
    return store.containers


def _listing(kind: Callable[[Store], Collection[Any, Any]]) -> Code:
    def command(store: Store, arguments: Sequence[str], given: Given) -> int:
        keys = list(kind(store)[arguments[0]].data)
        if given.yes("json"):
            output.json(keys or None)
        else:
            for key in keys:
                output.line(key)
        return 0

    return command


def _getting(kind: Callable[[Store], Collection[Any, Any]]) -> Code:
    def command(store: Store, arguments: Sequence[str], given: Given) -> int:
        with output.writing(given.get("file")) as out:
            out.write(kind(store)[arguments[0]].data[arguments[1]])
        return 0

    return command


def _setting(kind: Callable[[Store], Collection[Any, Any]]) -> Code:
    def command(store: Store, arguments: Sequence[str], given: Given) -> int:
        with output.reading(given.get("file")) as stream:
            item = kind(store)[arguments[0]]
            if item.read_only:
                raise _unknown_here(kind(store), item.id)
            item.data.set(arguments[1], stream.read())
        return 0

    return command


def _unknown_here(collection: Collection[Any, Any], id: str) -> NotFound:
    if collection.kind == "layers":
        return LayerUnknown(id, f'locating layer with ID "{id}" to write bigdata')
    return collection.missing(id)


def _asking(kind: Callable[[Store], Collection[Any, Any]], what: str) -> Code:
    def command(store: Store, arguments: Sequence[str], _given: Given) -> int:
        found = getattr(kind(store)[arguments[0]].data, what)(arguments[1])
        output.line(output.size(found) if what == "size" else str(found))
        return 0

    return command


def _placing(kind: Callable[[Store], Collection[Any, Any]], which: str) -> Code:
    def command(store: Store, arguments: Sequence[str], _given: Given) -> int:
        output.line(os.fspath(getattr(kind(store)[arguments[0]], which)))
        return 0

    return command


list_layer, get_layer, set_layer = _listing(_layers), _getting(_layers), _setting(_layers)
list_image, get_image, set_image = _listing(_images), _getting(_images), _setting(_images)
list_container, get_container, set_container = _listing(_containers), _getting(_containers), _setting(_containers)
size_image, digest_image = _asking(_images, "size"), _asking(_images, "digest")
size_container, digest_container = _asking(_containers, "size"), _asking(_containers, "digest")
directory_image, run_directory_image = _placing(_images, "directory"), _placing(_images, "run_directory")
directory_container, run_directory_container = (
    _placing(_containers, "directory"),
    _placing(_containers, "run_directory"),
)
