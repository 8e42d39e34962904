"""Layers of zfs that are read: which datasets they are, and mounts of them that are nowhere.

So no mount point or count is needed, and a mount ends with the process that has it.
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.drivers import zfs_datasets, zfs_mounts
from layerhold.drivers.base import ERASE, Contents, Features, checked, is_safe
from layerhold.drivers.options import parse
from layerhold.drivers.zfs_datasets import CommandFailed, Datasets
from layerhold.errors import DriverPrerequisites, DriverReadOnly, InvalidID
from layerhold.linux import mountinfo
from layerhold.linux.idmap import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import NoReturn

    from layerhold.ids.mappings import IdMappings

OPTIONS = frozenset({"fsname", "mountopt"})


class ZfsLayers:
    """The part of the driver that changes nothing. `aside`: what else of ours there was when it was opened.

    The datasets are below one of the user's: the one that is named, or that the graph root lies on.
    """

    name = "zfs"
    reserved: frozenset[str] = frozenset()
    squash = False

    def __init__(self, home: str, options: Sequence[str]) -> None:
        settings = parse(options, "zfs", OPTIONS)
        zfs_datasets.need_programs()
        if os.geteuid() != 0 or in_user_namespace():
            raise DriverPrerequisites("zfs: only root may mount datasets")
        self.home = home
        self._graph = os.path.join(home, "graph")
        self._words = tuple(settings.all("mountopt"))
        self._datasets = Datasets(settings.get("fsname") or _under(home))
        try:
            self._found_aside = self._datasets.names()[1]
        except CommandFailed as error:
            words = f"cannot find root filesystem {self._datasets.top}: {error.words}"
            raise DriverPrerequisites(words, hint="`zfs.fsname` names the dataset to have layers in") from error

    def path(self, id: str) -> str:
        """Say where the layer is mounted, or would be. Raises InvalidID for what cannot be a layer's name."""
        return os.path.join(self._graph, checked(id, self.reserved))

    @contextmanager
    def contents(
        self,
        id: str,
        *,
        against: str | None,  # noqa: ARG002 - a whole tree always
        mappings: IdMappings | None = None,  # noqa: ARG002 - the files have the right owners
    ) -> Iterator[Contents]:
        """Mount the layer nowhere, and give its tree."""
        fd = self._shown(id, self._words, read_only=True)
        try:
            yield Contents(path=zfs_mounts.tree(fd), deletions=ERASE)
        finally:
            os.close(fd)

    def own_files(self, id: str) -> AbstractContextManager[Contents]:
        """Give the layer's tree."""
        return self.contents(id, against=None)

    def maps_at_mount(self) -> bool:
        """Say no: files have the owners that they are to have."""
        return False

    def is_mounted(self, id: str) -> bool:
        """Tell whether something is mounted on `graph/<id>`."""
        return is_safe(id, self.reserved) and os.path.realpath(self.path(id)) in mountinfo.mount_points()

    def exists(self, id: str) -> bool:
        """Tell whether there is a dataset for `id`."""
        return self._datasets.can_be(id) and self._datasets.exists(id)

    def ids(self) -> Iterator[str]:
        """List the layers that have datasets."""
        yield from self._datasets.names()[0]

    def describe(self) -> Sequence[tuple[str, str]]:
        """Say what Go's `status` says."""
        used, available, quota, compression = self._datasets.state()
        return (
            ("Zpool", self._datasets.pool),
            ("Zpool Health", self._datasets.health()),
            ("Parent Dataset", self._datasets.top),
            ("Space Used By Parent", used),
            ("Space Available", available),
            ("Parent Quota", "no" if quota == "0" else quota),
            ("Compression", compression),
        )

    def locations(self, id: str) -> Mapping[str, str]:
        """Say which dataset the layer is, and where it is mounted."""
        return {"Mountpoint": self.path(id), "Dataset": self._datasets.full(id)}

    def _shown(self, id: str, words: Sequence[str], *, read_only: bool) -> int:
        return zfs_mounts.shown(self._datasets.full(self._named(id)), words, read_only=read_only)

    def _named(self, id: str) -> str:
        checked(id, self.reserved)
        if not self._datasets.can_be(id):
            raise InvalidID(f"{id!r} is no name that zfs has for a dataset below {self._datasets.top}")
        return id


class ZfsToRead(ZfsLayers):
    """The layers of a store of which nothing is changed."""

    features = Features(read_only=True)

    def _refuse(self, *_given: object, **_also: object) -> NoReturn:
        raise DriverReadOnly(f"{self.home} is only read")

    building = duplicating = rebuilding = mount = trash = remove = _refuse

    def unmount(self, id: str) -> None:
        """Do nothing: nothing was mounted."""

    def sweep(self) -> None:
        """Leave everything as it is."""

    def shutdown(self) -> None:
        """Do nothing: nothing was set up."""


def _under(home: str) -> str:
    """Name the dataset that the home lies on, or would lie on. Raises DriverPrerequisites, in Go's words."""
    above = os.path.abspath(home)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    mount = mountinfo.mount_of(above)
    if mount.kind != "zfs":
        hint = "`zfs.fsname` names a dataset for layers of a store that lies elsewhere"
        raise DriverPrerequisites(f"no zfs dataset found for rootdir '{os.path.dirname(home)}'", hint=hint)
    return mount.source
