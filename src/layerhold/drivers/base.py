"""What a driver is: it says where a layer's files are. It knows nothing of tar, of records, or of names.

A driver owns one directory, its *home* (`<graphroot>/<driver>`), and one for what need not outlive a reboot
(`<runroot>/<driver>`). The docstrings say which methods are called with the store's layer lock held; `building` is not,
so that a layer can be filled while others use the store.

Life of a layer: `building` makes a place aside, the archive package fills `build.contents`, `build.publish()` moves it
into place; without `publish` the end of the block throws it away. `remove` moves a layer aside into a trash directory,
which is emptied after the locks are released.
"""

from __future__ import annotations

from layerhold.errors import InvalidID
from layerhold.values import Protocol, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback, Meter
    from layerhold.tree.trash import Bin

# How a tree shows that a name of a lower layer is gone.
ERASE = "erase"  # the name is simply not there: the tree is whole
OVERLAY_MARKS = "overlay-marks"  # a 0/0 character device, or an opaque xattr on the directory
AUFS_MARKS = "aufs-marks"  # a file `.wh.<name>`, or `.wh..wh..opq` in the directory: only to be read
FUSE_MARKS = "fuse-marks"  # any of these, and the files where one is made: what fuse-overlayfs understands


class Features(Value):
    """What a driver can do here.

    `read_only`: layers can be read, and nothing else. `native_diff`: what a layer changes is known without comparing
    two trees. `reflink`: copies share their blocks where the file system can. `volatile`: mounts that are never synced.
    `quota`: layers can be limited in size.
    """

    read_only: bool = False
    native_diff: bool = False
    reflink: bool = False
    volatile: bool = False
    quota: bool = False


class LayerSpec(Value):
    """How a new layer is to be made. `writable`: for a container, not one of an image's.

    `mappings` say who in the layer is who on the host, and `parent_mappings` the same of its parent; what the layer has
    of the parent gets new owners if they differ. None: as in the container. `storage_options`: keys and values that are
    for this layer alone, such as its `size`.
    """

    writable: bool = True
    mappings: IdMappings | None = None
    parent_mappings: IdMappings | None = None
    label: str = ""
    storage_options: tuple[tuple[str, str], ...] = ()

    @property
    def remapped(self) -> bool:
        """Whether the files of the parent are to get new owners."""
        return (self.mappings or None) != (self.parent_mappings or None)


class MountOptions(Value):
    """How a layer is to be mounted. `mappings`: who in the container is who on the host, for layers below it."""

    label: str = ""
    options: tuple[str, ...] = ()
    read_only: bool = False
    volatile: bool = False
    mappings: IdMappings | None = None


class Contents(Value):
    """How to read or fill a layer's files.

    `deletions` is ERASE, or one of the MARKS. `lowers` is None for a whole tree; else the tree at `path` holds
    only the changes over these directories, nearest first. `xattr_prefix` is the prefix of overlay's own attributes in
    it. `united`: meant is the whole tree that `path` over `lowers` would show (archive/united.py). `mask`: the mode of
    all files that are brought in, whose own is written beside them (archive/override_stat.py). `owners_inside`: where
    the mount maps owners, it maps those of this tree, too, so here they are as in the container.
    """

    path: str
    deletions: str = ERASE
    lowers: tuple[str, ...] | None = None
    xattr_prefix: str = "trusted.overlay."
    united: bool = False
    mask: int | None = None
    owners_inside: bool = False


def is_safe(id: str, reserved: frozenset[str]) -> bool:
    """Tell whether a directory of the name `id` can be a layer's: damaged records have IDs like "", ".." and "l".

    They are never acted on: Go's programs have removed whole stores for them.
    """
    return bool(id) and id[0] != "." and "/" not in id and "\0" not in id and id not in reserved


def checked(id: str, reserved: frozenset[str]) -> str:
    """Give an ID that a layer's directory can be called by. Raises InvalidID."""
    if not is_safe(id, reserved):
        raise InvalidID(f"{id!r} is no ID that a layer can have")
    return id


class Build(Protocol):
    """A layer in the making, aside. `publish` moves it into its place (the layers lock is held exclusively)."""

    contents: Contents

    def sync(self, *, filled: bool = True) -> None:
        """Make what was written durable when what is written later is, before any record speaks of it (no lock held).

        `filled`: there may be files of the caller's in `contents`.
        """

    def publish(self) -> None:
        """Move the layer into its place; what is not published is thrown away at the end of the block.

        The move is durable once anything that is written afterwards has been synced.
        """


class Driver(Protocol):
    """Where the files of layers are.

    `id` is a full layer ID. One that cannot be a layer's (see `is_safe`) has no files: it is not removed, unmounted or
    found, and what needs files raises InvalidID; LayerWithoutFiles if there are none of a layer that could be there.
    """

    name: str
    home: str
    features: Features
    reserved: frozenset[str]  # names in the home that no layer may have as its ID
    squash: bool  # ignore_chown_errors: owners that cannot be set are left as they are

    def path(self, id: str) -> str:
        """Say where the directory of layer `id` is, or would be. Raises InvalidID."""

    def building(
        self, id: str, parent: str | None, spec: LayerSpec, progress: Callback | None = None
    ) -> AbstractContextManager[Build]:
        """Make a place aside for layer `id` over `parent` (no lock held). Raises OSError, DriverError.

        `progress` is told of files that this takes copies of.
        """

    def duplicating(
        self, id: str, template: str, spec: LayerSpec, progress: Callback | None = None
    ) -> AbstractContextManager[Build]:
        """Make a place aside for layer `id`, with all that layer `template` has, over what that one stands on.

        The two do not depend on one another (no lock held). Raises as `building` does.
        """

    def contents(
        self, id: str, *, against: str | None, mappings: IdMappings | None = None
    ) -> AbstractContextManager[Contents]:
        """Give the files of layer `id`: only the changes over layer `against` if the driver can, else the whole tree.

        `against=None` asks for the whole tree, unless the layer has no parent (then its own directory is the whole).
        `mappings` are those for the layers below, as in a mount.
        """

    def own_files(self, id: str) -> AbstractContextManager[Contents]:
        """Give the directory that holds what was brought in with layer `id` itself, for reading tar-split contents."""

    def rebuilding(self, id: str, progress: Callback | None = None) -> AbstractContextManager[Build]:
        """Make a copy aside of what layer `id` itself holds, to be changed; `publish` puts it in the old one's place.

        `progress` is told of the copying. Lock held exclusively.
        """

    def maps_at_mount(self) -> bool:
        """Tell whether mounts can show layers with other owners than their files have (idmapped mounts)."""

    def mount(self, id: str, options: MountOptions) -> str:
        """Mount layer `id`, or say where it is mounted already, and return the path (lock held exclusively)."""

    def unmount(self, id: str) -> None:
        """Undo `mount`; what is not mounted is left alone (lock held exclusively)."""

    def is_mounted(self, id: str) -> bool:
        """Tell whether the kernel has layer `id` mounted (always true for drivers that need no mount)."""

    def trash(self, meter: Meter | None = None) -> AbstractContextManager[Bin]:
        """Open a directory aside for `remove`; entered before the locks are taken, emptied at the end of the block.

        The meter counts what is deleted then.
        """

    def remove(self, id: str, trash: Bin) -> None:
        """Move layer `id` into the trash; a layer that is not there is no error (lock held exclusively)."""

    def exists(self, id: str) -> bool:
        """Tell whether the driver has files of layer `id`."""

    def ids(self) -> Iterator[str]:
        """List the layers that the driver has files of."""

    def describe(self) -> Sequence[tuple[str, str]]:
        """Say what `status` shows of the driver: pairs of key and value, in the Go program's order."""

    def locations(self, id: str) -> Mapping[str, str]:
        """Say where layer `id` is: the Go program's metadata of a layer (UpperDir, LowerDir, ...)."""

    def sweep(self) -> None:
        """Remove what a crash left aside, and restore what only the driver can (lost links). Lock held exclusively."""

    def shutdown(self) -> None:
        """Undo what was set up for the whole home, such as its bind mount (storage lock held)."""
