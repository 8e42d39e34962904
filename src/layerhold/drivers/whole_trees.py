"""What drivers share whose layers are whole trees: each a directory with all files of all layers below it.

Reading such a layer is reading its directory, and "mounting" it is saying where that is.
"""

from __future__ import annotations

import os
import stat

from layerhold.blocks import contextmanager
from layerhold.drivers.base import ERASE, Contents, Features, checked, is_safe
from layerhold.drivers.homes import Homes
from layerhold.errors import DriverError, DriverReadOnly, LayerWithoutFiles
from layerhold.tree.durable import settle_names, settle_tree, sync_tree
from layerhold.tree.files import move

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import NoReturn

    from layerhold.drivers.base import LayerSpec, MountOptions
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback

# As Go since 1.24: root may write all the same. An ordinary user needs the right to, or a container could add nothing.
_BASE_MODE, _BASE_MODE_OF_USER = 0o555, 0o755


class WholeTrees:
    """The part of a driver that needs to know no more than which homes have directories of layers."""

    name: str
    reserved: frozenset[str] = frozenset()
    _homes: Homes

    def path(self, id: str) -> str:
        """Say where layer `id` is. Raises InvalidID for what cannot be a layer's name."""
        return os.path.join(self._homes.of(checked(id, self.reserved)), id)

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
            raise DriverError(f"{self.name} driver does not support mount options")
        return self._there(id)

    def unmount(self, id: str) -> None:
        """Do nothing: there is no mount."""

    def is_mounted(self, id: str) -> bool:
        """Tell whether the directory is there."""
        return self.exists(id)

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

    def locations(self, id: str) -> Mapping[str, str]:  # noqa: ARG002
        """Nothing: Go's drivers of this kind say nothing either."""
        return {}

    def _there(self, id: str, *, call: str = "stat") -> str:
        """Give the directory. Raises LayerWithoutFiles, which names the call that Go's program makes here."""
        path = self.path(id)
        if not os.path.isdir(path):
            raise LayerWithoutFiles(id, f"{call} {path}")
        return path


class TreesToRead(WholeTrees):
    """The layers of a driver of this kind, in `directory` of its `homes`, of which none is changed."""

    features = Features(read_only=True)
    squash = False

    def __init__(self, name: str, homes: Sequence[str], directory: str) -> None:
        self.name = name
        self.home = homes[0]
        own, *others = (os.path.join(home, directory) for home in homes)
        self._homes = Homes(own=own, additional=tuple(others))

    def _refuse(self, *_given: object, **_also: object) -> NoReturn:
        raise DriverReadOnly(f"{self.home} is only read")

    building = duplicating = rebuilding = trash = remove = _refuse

    def describe(self) -> Sequence[tuple[str, str]]:
        """Say nothing."""
        return ()

    def sweep(self) -> None:
        """Leave everything as it is."""

    def shutdown(self) -> None:
        """Do nothing: nothing was set up."""


def furnish(place: str, parent: str | None, spec: LayerSpec, progress: Callback | None) -> None:
    """Give the tree of a new layer its label, mode and owners: an empty one, or a copy of its parent's."""
    if parent is None:
        from layerhold import labels

        labels.share(place)
        begin(place, spec.mappings)
    elif spec.remapped:
        from layerhold.drivers.ownership import change_owners

        change_owners(place, spec.parent_mappings, spec.mappings, progress=progress)


def begin(place: str, mappings: IdMappings | None) -> None:
    """Give the empty directory of a layer without a parent its mode and owner."""
    os.chmod(place, _BASE_MODE if os.geteuid() == 0 else _BASE_MODE_OF_USER)
    if os.geteuid() == 0 and mappings is not None:
        os.chown(place, *mappings.root())


class WholeBuild:
    """A layer's directory in the making; `copied`: there are files in it already."""

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
