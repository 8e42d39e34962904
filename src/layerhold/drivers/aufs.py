"""The aufs driver: stores that it made, to be read. No kernel has aufs any more, so nothing is mounted or made.

    <home>/diff/<id>/     the layer's own files; `.wh.<name>` hides a name of a layer below, `.wh..wh..opq` all of them
    <home>/layers/<id>    the layers that it stands on, nearest first, one on a line
    <home>/mnt/<id>/      where it was mounted

A layer's own files are its changes as they are; a whole tree is read from several directories at once. Whoever wants to
go on with such a store makes another one of it (convert.py). Nothing is written here, opening the driver included: what
Go's program renamed to `<id>-removing` and could not remove stays.
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.drivers.base import AUFS_MARKS, Contents, Features, checked, is_safe
from layerhold.drivers.options import parse
from layerhold.errors import BadConfig, DriverError, DriverReadOnly, LayerWithoutFiles
from layerhold.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import NoReturn

    from layerhold.ids.mappings import IdMappings

OPTIONS = frozenset({"mountopt"})
_REMOVING = "-removing"


class AufsDriver:
    """Layers that the aufs driver of Go's programs made below `home`."""

    name = "aufs"
    features = Features(read_only=True, native_diff=True)
    reserved: frozenset[str] = frozenset()
    squash = False

    def __init__(self, home: str, options: Sequence[str] = (), *, additional: Sequence[str] = ()) -> None:
        parse(options, "aufs", OPTIONS)
        for other in additional:
            raise BadConfig(f"option imagestore={os.path.dirname(other)} not supported")
        self.home = home

    def path(self, id: str) -> str:
        """Say where the files of layer `id` are. Raises InvalidID for what cannot be a layer's name."""
        return os.path.join(self.home, "diff", checked(id, self.reserved))

    @contextmanager
    def contents(
        self,
        id: str,
        *,
        against: str | None,
        mappings: IdMappings | None = None,  # noqa: ARG002 - the files have the right owners
    ) -> Iterator[Contents]:
        """Give the layer's own files, or these over all that are below them."""
        below = self._below(id)
        lowers = tuple(self._diff(layer) for layer in below)
        alone = bool(below) and against == below[0]
        yield Contents(path=self._diff(id), deletions=AUFS_MARKS, lowers=lowers, united=not alone)

    @contextmanager
    def own_files(self, id: str) -> Iterator[Contents]:
        """Give the layer's own files."""
        yield Contents(path=self._diff(id), deletions=AUFS_MARKS, lowers=())

    def maps_at_mount(self) -> bool:
        """Say no: there is no mount."""
        return False

    def unmount(self, id: str) -> None:
        """Do nothing: nothing can be mounted."""

    def is_mounted(self, id: str) -> bool:  # noqa: ARG002
        """Say no."""
        return False

    def exists(self, id: str) -> bool:
        """Tell whether there is a directory for `id`."""
        return is_safe(id, self.reserved) and os.path.isdir(self.path(id))

    def ids(self) -> Iterator[str]:
        """List the directories with files of layers."""
        try:
            with os.scandir(os.path.join(self.home, "diff")) as entries:
                for entry in entries:
                    is_one = is_safe(entry.name, self.reserved) and not entry.name.endswith(_REMOVING)
                    if is_one and entry.is_dir(follow_symlinks=False):
                        yield entry.name
        except FileNotFoundError:
            return

    def describe(self) -> Sequence[tuple[str, str]]:
        """Say what Go's `status` said."""
        return (
            ("Root Dir", self.home),
            ("Backing Filesystem", mountinfo.filesystem_of(self.home)),
            ("Dirs", str(len(list(self.ids())))),
            ("Dirperm1 Supported", "false"),
        )

    def locations(self, id: str) -> Mapping[str, str]:  # noqa: ARG002
        """Nothing: Go's driver said nothing either."""
        return {}

    def sweep(self) -> None:
        """Leave everything as it is."""

    def shutdown(self) -> None:
        """Do nothing: nothing was set up."""

    def _below(self, id: str) -> list[str]:
        """List the layers below `id`, nearest first. Raises LayerWithoutFiles, DriverError."""
        path = os.path.join(self.home, "layers", id)
        self._diff(id)
        try:
            with open(path, errors="surrogateescape") as file:
                below = [line.strip() for line in file if line.strip()]
        except FileNotFoundError:
            raise DriverError(f"layer {id}: {path}, which says what it stands on, is missing") from None
        for layer in below:
            if not self.exists(layer):
                raise DriverError(f"layer {id}: the layer {layer} below it is missing")
        return below

    def _diff(self, id: str) -> str:
        path = self.path(id)
        if not os.path.isdir(path):
            raise LayerWithoutFiles(id, f"stat {path}")
        return path

    def _refuse(self, *_given: object, **_also: object) -> NoReturn:
        """Say why, and what to do. Removing is refused when the trash is opened, before any record is changed."""
        graphroot = os.path.dirname(self.home)
        raise DriverReadOnly(
            f"{graphroot} is a store of aufs, which no kernel has any more: it can only be read, or converted "
            f"(layerhold convert {graphroot} --to overlay)"
        )

    building = duplicating = rebuilding = mount = trash = remove = _refuse
