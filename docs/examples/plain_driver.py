"""A driver of one's own: each layer is a directory `<home>/layers/<id>` with all files of the layers below it.

A new layer is a copy of its parent, made aside in `<home>/aside`, and renamed into its place. It works for anybody on
any file system.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerhold.drivers.base import ERASE, Contents, Features, is_safe
from layerhold.errors import DriverError, InvalidID, LayerWithoutFiles
from layerhold.ids.owners import Owners
from layerhold.tree.copy import copy_tree
from layerhold.tree.durable import settle_names, sync_tree
from layerhold.tree.files import make_dirs
from layerhold.tree.trash import Aside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from layerhold.drivers.base import Build, LayerSpec, MountOptions
    from layerhold.drivers.choose import Place
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback, Meter
    from layerhold.tree.trash import Bin, TempDir


def open_driver(place: Place, options: Sequence[str]) -> PlainDriver:
    """What the entry point names: open the driver for a store."""
    if options:
        raise DriverError(f"plain has no options, and got {', '.join(options)}")
    return PlainDriver(os.path.join(place.graphroot, "plain"))


class PlainDriver:
    """Layers as plain directories."""

    name = "plain"
    features = Features()
    reserved: frozenset[str] = frozenset()
    squash = False

    def __init__(self, home: str) -> None:
        self.home = home
        self._layers = os.path.join(home, "layers")
        self._aside = Aside(os.path.join(home, "aside"))
        make_dirs(self._layers)
        self.sweep()

    # -- where layers are

    def path(self, id: str) -> str:
        if not is_safe(id, self.reserved):
            raise InvalidID(f"{id!r} is no ID that a layer can have")
        return os.path.join(self._layers, id)

    def exists(self, id: str) -> bool:
        return is_safe(id, self.reserved) and os.path.isdir(self.path(id))

    def ids(self) -> Iterator[str]:
        yield from os.listdir(self._layers)

    def locations(self, id: str) -> Mapping[str, str]:
        return {"Directory": self.path(id)}

    def _there(self, id: str) -> str:
        path = self.path(id)
        if not os.path.isdir(path):
            raise LayerWithoutFiles(id, f"there is no {path}")
        return path

    # -- how they come, change and go

    @contextmanager
    def building(
        self, id: str, parent: str | None, spec: LayerSpec, progress: Callback | None = None
    ) -> Iterator[Build]:
        if spec.storage_options:
            raise DriverError("plain cannot limit the size of layers")
        owners = Owners(spec.parent_mappings, spec.mappings) if spec.remapped and parent else None
        with self._aside.open() as temporary:
            yield PlainBuild(self._copied(parent, temporary, owners, progress), self.path(id), temporary)

    def duplicating(self, id: str, template: str, spec: LayerSpec, progress: Callback | None = None):  # noqa: ANN201
        return self.building(id, template, spec, progress)

    @contextmanager
    def rebuilding(self, id: str, progress: Callback | None = None) -> Iterator[Build]:
        with self._aside.open() as temporary:
            yield PlainBuild(self._copied(id, temporary, None, progress), self.path(id), temporary)

    def _copied(self, id: str | None, temporary: TempDir, owners: Owners | None, progress: Callback | None) -> str:
        place = temporary.place("layer")
        os.mkdir(place, 0o755)
        if id is not None:
            copy_tree(self._there(id), place, owners=owners, progress=progress)
        return place

    def trash(self, meter: Meter | None = None):  # noqa: ANN201
        return self._aside.open(meter)

    def remove(self, id: str, trash: Bin) -> None:
        if is_safe(id, self.reserved):
            trash.take(self.path(id))

    # -- how they are read and mounted

    @contextmanager
    def contents(self, id: str, *, against: str | None, mappings: IdMappings | None = None) -> Iterator[Contents]:
        yield Contents(path=self._there(id), deletions=ERASE)

    @contextmanager
    def own_files(self, id: str) -> Iterator[Contents]:
        yield Contents(path=self._there(id), deletions=ERASE)

    def maps_at_mount(self) -> bool:
        return False

    def mount(self, id: str, options: MountOptions) -> str:
        return self._there(id)

    def unmount(self, id: str) -> None:
        pass

    def is_mounted(self, id: str) -> bool:
        return self.exists(id)

    # -- the home

    def describe(self) -> Sequence[tuple[str, str]]:
        return [("Layers", str(len(os.listdir(self._layers))))]

    def sweep(self) -> None:
        self._aside.sweep()

    def shutdown(self) -> None:
        pass


class PlainBuild:
    """A layer in the making."""

    def __init__(self, place: str, final: str, temporary: TempDir) -> None:
        self.contents = Contents(path=place, deletions=ERASE)
        self._final = final
        self._temporary = temporary

    def sync(self, *, filled: bool = True) -> None:
        sync_tree(self.contents.path)

    def publish(self) -> None:
        self._temporary.take(self._final)  # what a crash left there, or what is to be replaced
        os.rename(self.contents.path, self._final)
        settle_names(os.path.dirname(self._final))
