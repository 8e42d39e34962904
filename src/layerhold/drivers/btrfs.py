"""The btrfs driver: each layer is a subvolume with all files of all layers below it.

    <home>/subvolumes/<id>/                   the layer
    <home>/quotas/                            limits on the size of layers (btrfs_quotas.py)
    <home>/tempdirs/lock-<n>, temp-dir-<n>/   layers in the making, and those that are being deleted

A new layer is a snapshot of its parent, which takes no time and no room whatever the parent's size. It is made aside,
as any other, and renamed into its place; removing one is renaming it aside, and destroying it there. A crash leaves
only what is in `tempdirs`, or a limit without a layer, which the next layer of that ID replaces.

Where somebody copied a store without its subvolumes, layers are plain directories, and are copied file by file. An
ordinary user can have this driver, too; he may not limit subvolumes, nor destroy them unless they are mounted with
`user_subvol_rm_allowed`, so their files are removed one by one.
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.drivers import btrfs_subvolumes, home_mount
from layerhold.drivers.base import Features, checked, is_safe
from layerhold.drivers.btrfs_quotas import Quotas
from layerhold.drivers.homes import Homes
from layerhold.drivers.options import parse
from layerhold.drivers.sizes import parse_size
from layerhold.drivers.whole_trees import WholeBuild, WholeTrees, furnish
from layerhold.errors import BadConfig, DriverError, DriverPrerequisites
from layerhold.linux import mountinfo
from layerhold.linux.idmap import in_user_namespace
from layerhold.tree.files import make_dirs
from layerhold.tree.trash import Aside, Shredder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from layerhold.drivers.base import Build, LayerSpec, MountOptions
    from layerhold.progress import Callback, Meter
    from layerhold.tree.trash import Bin

OPTIONS = frozenset({"min_space", "mountopt", "size"})


class BtrfsDriver(WholeTrees):
    """Layers as subvolumes below `<home>/subvolumes`."""

    name = "btrfs"
    squash = False

    def __init__(self, home: str, options: Sequence[str] = (), *, additional: Sequence[str] = ()) -> None:
        settings = parse(options, "btrfs", OPTIONS)
        if "mountopt" in settings:
            raise DriverError("btrfs driver does not support mount options")
        for other in additional:
            raise BadConfig(f'unknown option "imagestore" ("imagestore={os.path.dirname(other)}")')
        least = parse_size(settings.get("min_space")) if "min_space" in settings else 0
        self._size = parse_size(settings.get("size")) if "size" in settings else 0
        _refuse_other_filesystems(home)
        self.home = home
        self._homes = Homes(own=os.path.join(home, "subvolumes"))
        self._aside = Aside(os.path.join(home, "tempdirs"), remove=self._remove_aside)
        self._quotas = Quotas(home, least)
        make_dirs(self._homes.own)
        alone = os.geteuid() == 0 and not in_user_namespace()
        self.features = Features(reflink=True, quota=alone)
        if alone:
            home_mount.mount_home(home)
        if least:
            self._quotas.turn_on()
        self.sweep()

    @contextmanager
    def building(
        self, id: str, parent: str | None, spec: LayerSpec, progress: Callback | None = None
    ) -> Iterator[Build]:
        """Make a snapshot of the parent aside, or an empty subvolume there."""
        final = os.path.join(self._homes.own, checked(id, self.reserved))
        limit = self._limit(spec)
        with self._aside.open() as temporary:
            place = temporary.place()
            if parent is None:
                btrfs_subvolumes.create(place)
            else:
                self._copy(self._there(parent), place, progress)
            furnish(place, parent, spec, progress)
            if limit:
                self._quotas.limit(place, limit)
            yield _Build(place, final, self._quotas, limit, copied=spec.remapped)

    def duplicating(
        self, id: str, template: str, spec: LayerSpec, progress: Callback | None = None
    ) -> AbstractContextManager[Build]:
        """Make a snapshot of the template aside."""
        return self.building(id, template, spec, progress)

    @contextmanager
    def rebuilding(self, id: str, progress: Callback | None = None) -> Iterator[Build]:
        """Make a snapshot of the layer aside, to be changed and put back in its place."""
        with self._aside.open() as temporary:
            place = temporary.place()
            self._copy(self._there(id), place, progress)
            limit = self._quotas.of(id)
            if limit:
                self._quotas.limit(place, limit)
            yield _Build(place, self.path(id), self._quotas, limit, copied=True)

    def mount(self, id: str, options: MountOptions) -> str:
        """Say where the subvolume is, and limit it if it has a limit and this user may."""
        path = super().mount(id, options)
        if self.features.quota and (limit := self._quotas.of(id)):
            self._quotas.limit(path, limit)
        return path

    @contextmanager
    def trash(self, meter: Meter | None = None) -> Iterator[Bin]:
        """Open a directory aside for what is removed."""
        self._quotas.drop_gone()
        with self._aside.open(meter) as temporary:
            yield temporary

    def remove(self, id: str, trash: Bin) -> None:
        """Move the subvolume into the trash."""
        if not is_safe(id, self.reserved):
            return
        trash.take(self._quotas.file(id))
        path = self.path(id)
        if isinstance(trash, Shredder) and self.exists(id):
            self._destroy(path)  # takes no room, as removing files one by one does
        trash.take(path)

    def describe(self) -> Sequence[tuple[str, str]]:
        """Say what Go's `status` says, of what stands here for the library that it is built with: the kernel's own."""
        return ("Build Version", f"Linux {os.uname().release}"), ("Library Version", "none")

    def sweep(self) -> None:
        """Remove what a crash left aside, and what is left of removed subvolumes."""
        self._aside.sweep()
        self._quotas.drop_gone()

    def shutdown(self) -> None:
        """Undo the bind mount of the home. Quotas stay on."""
        home_mount.unmount_home(self.home)

    def _limit(self, spec: LayerSpec) -> int:
        """Say how much a new layer may refer to; 0: as much as there is. Raises BadConfig, DriverError."""
        limit = self._size if spec.writable else 0
        for key, value in spec.storage_options:
            if key.lower() != "size":
                raise BadConfig(f'unknown option "{key}" ("{key}={value}")')
            limit = parse_size(value)
        if limit:
            self._quotas.check(limit)
        return limit

    def _copy(self, source: str, place: str, progress: Callback | None) -> None:
        if btrfs_subvolumes.is_one(source):
            btrfs_subvolumes.snapshot(source, place)
            return
        from layerhold.tree.copy import copy_tree

        btrfs_subvolumes.create(place)
        copy_tree(source, place, progress=progress)

    def _remove_aside(self, directory: str, meter: Meter | None = None) -> None:
        btrfs_subvolumes.remove_all(directory, meter, gone=self._quotas.note_gone)

    def _destroy(self, path: str) -> None:
        if btrfs_subvolumes.is_one(path):
            btrfs_subvolumes.destroy(path, gone=self._quotas.note_gone)


class _Build(WholeBuild):
    """A layer's subvolume in the making."""

    def __init__(self, place: str, final: str, quotas: Quotas, limit: int, *, copied: bool) -> None:
        super().__init__(place, final, copied=copied)
        self._quotas = quotas
        self._limit = limit

    def sync(self, *, filled: bool = True) -> None:
        """Make the files durable; a mere snapshot becomes so with its new name."""
        if filled or self._copied:
            super().sync()

    def publish(self) -> None:
        """Note the limit, and move the subvolume into its place."""
        self._quotas.keep(os.path.basename(self._final), self._limit, os.path.dirname(self.contents.path))
        super().publish()


def _refuse_other_filesystems(home: str) -> None:
    """Raise DriverPrerequisites, in Go's words, if the home is not, or would not be, on btrfs."""
    above = os.path.abspath(home)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    if not _on_btrfs(above):
        raise DriverPrerequisites(f'"{home}" is not on a btrfs filesystem')


def _on_btrfs(directory: str) -> bool:
    from layerhold.linux import btrfs

    try:
        with btrfs_subvolumes.opened(directory) as fd:
            return btrfs.is_btrfs(fd)
    except PermissionError:  # a directory above the store that this user may only pass through
        return mountinfo.filesystem_of(directory) == "btrfs"
