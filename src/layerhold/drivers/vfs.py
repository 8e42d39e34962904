"""The vfs driver: each layer is a directory with all files of all layers below it.

    <home>/dir/<id>/                          the layer
    <home>/tempdirs/lock-<n>, temp-dir-<n>/   layers in the making, and those that are being deleted

It works for any user in any directory. A new layer is a copy of its parent, with blocks shared where the file system
can. "Mounting" is saying where the directory is. A crash leaves only what is in `tempdirs`.
"""

from __future__ import annotations

import os

from layerhold.blocks import ExitStack, contextmanager
from layerhold.drivers.base import Features, checked, is_safe
from layerhold.drivers.homes import Homes
from layerhold.drivers.options import parse
from layerhold.drivers.whole_trees import WholeBuild, WholeTrees, begin
from layerhold.errors import DriverError
from layerhold.tree.files import make_dirs
from layerhold.tree.trash import Aside, SeveralBins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from layerhold.drivers.base import Build, LayerSpec
    from layerhold.ids.owners import Owners
    from layerhold.progress import Callback, Meter
    from layerhold.tree.trash import Bin

OPTIONS = frozenset({"ignore_chown_errors", "mountopt", "imagestore", "additionalimagestore"})


class VfsDriver(WholeTrees):
    """Layers as plain directories below `<home>/dir`."""

    name = "vfs"
    features = Features(reflink=True)

    def __init__(
        self, home: str, options: Sequence[str] = (), *, images: str = "", additional: Sequence[str] = ()
    ) -> None:
        settings = parse(options, "vfs", OPTIONS)
        if "mountopt" in settings:
            raise DriverError("vfs driver does not support mount options")
        self.home = home
        self.squash = settings.flag("ignore_chown_errors")
        self._homes = Homes(
            own=os.path.join(home, "dir"),
            images=os.path.join(images, "dir") if images else "",
            additional=tuple(os.path.join(other, "dir") for other in additional),
        )
        self._asides = {
            place: Aside(os.path.join(os.path.dirname(place), "tempdirs")) for place in self._homes.writable
        }
        for place, aside in self._asides.items():
            make_dirs(place)
            aside.sweep()

    @contextmanager
    def building(
        self, id: str, parent: str | None, spec: LayerSpec, progress: Callback | None = None
    ) -> Iterator[Build]:
        """Copy the parent aside, or make an empty directory there."""
        from layerhold import labels
        from layerhold.ids.owners import Owners

        if spec.storage_options:
            raise DriverError("--storage-opt is not supported for vfs")
        home = self._homes.for_new(writable=spec.writable)
        final = os.path.join(home, checked(id, self.reserved))
        with self._asides[home].open() as temporary:
            place = temporary.place()
            os.mkdir(place, 0o700)
            labels.share(place)  # what is made in it inherits it
            if parent is not None:
                owners = Owners(spec.parent_mappings, spec.mappings) if spec.remapped else None
                self._copy(parent, place, progress, owners=owners, call="Stat")
            else:
                begin(place, spec.mappings)
            yield WholeBuild(place, final, copied=parent is not None)

    def duplicating(
        self, id: str, template: str, spec: LayerSpec, progress: Callback | None = None
    ) -> AbstractContextManager[Build]:
        """Copy the template aside."""
        return self.building(id, template, spec, progress)

    @contextmanager
    def rebuilding(self, id: str, progress: Callback | None = None) -> Iterator[Build]:
        """Copy the layer aside, to be changed and put back in its place."""
        with self._asides[self._homes.of(id)].open() as temporary:
            place = temporary.place()
            os.mkdir(place, 0o700)
            self._copy(id, place, progress)
            yield WholeBuild(place, self.path(id), copied=True)

    @contextmanager
    def trash(self, meter: Meter | None = None) -> Iterator[Bin]:
        """Open a directory aside for what is removed, in each home that has layers of the store's own."""
        with ExitStack() as stack:
            bins = {home: stack.enter_context(aside.open(meter)) for home, aside in self._asides.items()}
            yield SeveralBins(bins) if len(bins) > 1 else bins[self._homes.own]

    def remove(self, id: str, trash: Bin) -> None:
        """Move the directory into the trash."""
        if is_safe(id, self.reserved) and self._homes.of(id) in self._homes.writable:
            trash.take(self.path(id))

    def describe(self) -> Sequence[tuple[str, str]]:
        """Nothing: Go's vfs says nothing either."""
        return ()

    def sweep(self) -> None:
        """Remove what a crash left aside."""
        for aside in self._asides.values():
            aside.sweep()

    def shutdown(self) -> None:
        """Do nothing: nothing was set up."""

    def _copy(
        self, id: str, place: str, progress: Callback | None, *, owners: Owners | None = None, call: str = "stat"
    ) -> None:
        from layerhold.tree.copy import copy_tree

        copy_tree(self._there(id, call=call), place, owners=owners, squash=self.squash, progress=progress)
