"""Garbage: files of layers, images and containers that no record has.

Crashes of other programs leave it, and hands that delete records. What is looked at, as in the Go library:

    the driver's layers, whatever their names     <driver>-layers/<64 hex digits>/ and <64 hex digits>.tar-split.gz
    <driver>-images/<64 hex digits>/              <driver>-containers/<64 hex digits>/

All is found and moved while the exclusive locks of all three kinds are held, so nobody is between making files and
saving their record. What is built aside is in places with locks of their own (tree/trash.py), and is not looked at. The
files of a layer whose record is gone stay while another record still names it: without them what stands on it would be
lost as well (Go removes them). A root for images alone may serve several stores, so it is not looked at either.
"""

from __future__ import annotations

import os

from layerhold import references
from layerhold.identifiers import is_plain
from layerhold.tree.files import remove_tree
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.drivers.base import Driver
    from layerhold.layer_files import Bins, LayerFiles
    from layerhold.progress import Meter
    from layerhold.store import Store
    from layerhold.tables import Views

_SPLIT = ".tar-split.gz"


class Garbage(Value):
    """Something that no record has: `kind` is "layer", "image" or "container", `id` whose it was."""

    kind: str
    id: str
    path: str


def find(store: Store) -> list[Garbage]:
    """Look for garbage, and leave it. Raises OSError."""
    with store._tables.reading("layers", "images", "containers") as views:
        return list(_found(store, views))


def collect(store: Store, meter: Meter | None = None) -> list[Garbage]:
    """Remove all garbage, and say what it was. Raises OSError, the first one, after everything was tried.

    The meter counts what is in the layers among it.
    """
    files = store._files
    gone, failure = [], None
    with files.bins(meter) as bins, store._tables.writing("layers", "images", "containers") as editors:
        editors.layers.save()  # in a batch, files are garbage only when the file of records says that their layer went
        for garbage in list(_found(store, editors)):
            try:
                _remove(garbage, files, bins)
            except OSError as error:
                failure = failure or error
            else:
                gone.append(garbage)
    if failure is not None:
        raise failure
    return gone


def _remove(garbage: Garbage, files: LayerFiles, bins: Bins) -> None:
    if garbage.kind != "layer":
        remove_tree(garbage.path)
    elif garbage.path == files.driver.path(garbage.id):
        files.driver.unmount(garbage.id)
        files.driver.remove(garbage.id, bins.driver)
    else:
        bins.beside.take(garbage.path)


def _found(store: Store, views: Views) -> Iterator[Garbage]:
    for kind, directory, known in (
        ("container", store.containers.directory, views.containers),
        ("image", store.images.directory, views.images.own),
    ):
        for id, path in _directories(directory):
            if id not in known:
                yield Garbage(kind=kind, id=id, path=path)
    named = references.named_layers(views)
    for id, path in (*_in_driver(store.driver), *_beside(store._files)):
        if id not in named:
            yield Garbage(kind="layer", id=id, path=path)


def _in_driver(driver: Driver) -> Iterator[tuple[str, str]]:
    """Give the layers in the driver's own home."""
    for id in sorted(driver.ids()):
        path = driver.path(id)
        if path.startswith(driver.home + "/"):
            yield id, path


def _beside(files: LayerFiles) -> Iterator[tuple[str, str]]:
    """Give what lies beside the layers' records: big data and tar-split files, each with the ID of its layer."""
    yield from _directories(files.directory)
    for name in sorted(os.listdir(files.directory)):
        if name.endswith(_SPLIT) and is_plain(name.removesuffix(_SPLIT)):
            yield name.removesuffix(_SPLIT), os.path.join(files.directory, name)


def _directories(above: str) -> Iterator[tuple[str, str]]:
    """Give the directories in `above` whose names are IDs as programs make them."""
    with os.scandir(above) as entries:
        found = sorted(entry.name for entry in entries if is_plain(entry.name) and entry.is_dir(follow_symlinks=False))
    for name in found:
        yield name, os.path.join(above, name)
