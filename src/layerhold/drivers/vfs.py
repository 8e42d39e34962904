"""The vfs driver: each layer is a directory with all files of all layers below it.

    <home>/dir/<id>/                          the layer
    <home>/tempdirs/lock-<n>, temp-dir-<n>/   layers in the making, and those that are being deleted

It works for any user in any directory. A new layer is a copy of its parent, with blocks shared where the file system
can. "Mounting" is saying where the directory is. A crash leaves only what is in `tempdirs`.
"""

from __future__ import annotations

import os
import stat

from layerhold.blocks import ExitStack, contextmanager
from layerhold.drivers.base import ERASE, Contents, Features, is_safe
from layerhold.drivers.homes import Homes
from layerhold.drivers.options import parse
from layerhold.errors import DriverError, InvalidID, LayerWithoutFiles
from layerhold.tree.durable import settle_names, settle_tree, sync_tree
from layerhold.tree.files import make_dirs, move
from layerhold.tree.trash import Aside, SeveralBins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from layerhold.drivers.base import Build, LayerSpec, MountOptions
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback, Meter
    from layerhold.tree.trash import Bin

OPTIONS = frozenset({"ignore_chown_errors", "mountopt", "imagestore", "additionalimagestore"})
# As Go since 1.24: root may write all the same. An ordinary user needs the right to, or a container could add nothing.
_BASE_MODE, _BASE_MODE_OF_USER = 0o555, 0o755


class VfsDriver:
    """Layers as plain directories below `<home>/dir`."""

    name = "vfs"
    features = Features(reflink=True)
    reserved: frozenset[str] = frozenset()

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

    def path(self, id: str) -> str:
        """Say where layer `id` is. Raises InvalidID for what cannot be a layer's name."""
        return os.path.join(self._homes.of(self._checked(id)), id)

    def _checked(self, id: str) -> str:
        if not is_safe(id, self.reserved):
            raise InvalidID(f"{id!r} is no ID that a layer can have")
        return id

    @contextmanager
    def building(
        self, id: str, parent: str | None, spec: LayerSpec, progress: Callback | None = None
    ) -> Iterator[Build]:
        """Copy the parent aside, or make an empty directory there."""
        from layerhold import labels
        from layerhold.drivers.ownership import change_owners

        home = self._homes.for_new(writable=spec.writable)
        final = os.path.join(home, self._checked(id))
        with self._asides[home].open() as temporary:
            place = temporary.place()
            os.mkdir(place, 0o700)
            labels.relabel(place, labels.shared_file_label())  # what is made in it inherits it
            if parent is not None:
                self._copy(parent, place, progress, call="Stat")
                if spec.remapped:
                    change_owners(place, spec.parent_mappings, spec.mappings, squash=self.squash, progress=progress)
            else:
                os.chmod(place, _BASE_MODE if os.geteuid() == 0 else _BASE_MODE_OF_USER)
                if os.geteuid() == 0 and spec.mappings is not None:
                    os.chown(place, *spec.mappings.root())
            yield _Build(place, final, copied=parent is not None)

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
            yield _Build(place, self.path(id), copied=True)

    @contextmanager
    def contents(
        self,
        id: str,
        *,
        against: str | None,  # noqa: ARG002 - a whole tree always
        mappings: IdMappings | None = None,  # noqa: ARG002 - the files have the right owners
    ) -> Iterator[Contents]:
        """Give the directory."""
        yield Contents(path=self._there(id), deletions=ERASE)

    @contextmanager
    def own_files(self, id: str) -> Iterator[Contents]:
        """Give the directory."""
        yield Contents(path=self._there(id), deletions=ERASE)

    def maps_at_mount(self) -> bool:
        """Say no: there is no mount."""
        return False

    def mount(self, id: str, options: MountOptions) -> str:
        """Say where the directory is."""
        if [option for option in options.options if option != "ro"]:
            raise DriverError("vfs driver does not support mount options")
        return self._there(id)

    def unmount(self, id: str) -> None:
        """Do nothing: there is no mount."""

    def is_mounted(self, id: str) -> bool:
        """Tell whether the directory is there."""
        return self.exists(id)

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

    def exists(self, id: str) -> bool:
        """Tell whether there is a directory for `id`."""
        return is_safe(id, self.reserved) and os.path.isdir(self.path(id))

    def ids(self) -> Iterator[str]:
        """List the directories of the store's own."""
        for home in self._homes.writable:
            with os.scandir(home) as entries:
                for entry in entries:
                    if is_safe(entry.name, self.reserved) and entry.is_dir(follow_symlinks=False):
                        yield entry.name

    def describe(self) -> Sequence[tuple[str, str]]:
        """Nothing: Go's vfs says nothing either."""
        return ()

    def locations(self, id: str) -> Mapping[str, str]:  # noqa: ARG002
        """Nothing: Go's vfs says nothing either."""
        return {}

    def sweep(self) -> None:
        """Remove what a crash left aside."""
        for aside in self._asides.values():
            aside.sweep()

    def shutdown(self) -> None:
        """Do nothing: nothing was set up."""

    def _copy(self, id: str, place: str, progress: Callback | None, *, call: str = "stat") -> None:
        from layerhold.tree.copy import copy_tree

        copy_tree(self._there(id, call=call), place, progress=progress)

    def _there(self, id: str, *, call: str = "stat") -> str:
        """Give the directory. Raises LayerWithoutFiles, which names the call that Go's program makes here."""
        path = self.path(id)
        if not os.path.isdir(path):
            raise LayerWithoutFiles(id, f"{call} {path}")
        return path


class _Build:
    """A layer's directory in the making."""

    def __init__(self, place: str, final: str, *, copied: bool) -> None:
        self.contents = Contents(path=place, deletions=ERASE)
        self._final = final
        self._copied = copied

    def sync(self, *, filled: bool = True) -> None:
        """Make the files durable."""
        if filled or self._copied:
            sync_tree(os.path.dirname(self.contents.path))
        else:
            settle_tree(self.contents.path, ())

    def publish(self) -> None:
        """Move the directory into its place; what a crash left there, or what it is to replace, is thrown away."""
        if os.path.lexists(self._final):
            _swap(self.contents.path, self._final)
        else:
            move(self.contents.path, self._final)
        settle_names(os.path.dirname(self._final))


def _swap(one: str, other: str) -> None:
    """Let two directories change places in one step. To be moved they must be writable, so they are for the moment."""
    from layerhold.linux.files import RENAME_EXCHANGE, renameat2

    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (one, other)]
    for path, mode in zip((one, other), modes, strict=True):
        if not mode & 0o200:
            os.chmod(path, mode | 0o200)
    renameat2(one, other, RENAME_EXCHANGE)
    for path, mode in zip((other, one), modes, strict=True):
        if not mode & 0o200:
            os.chmod(path, mode)
