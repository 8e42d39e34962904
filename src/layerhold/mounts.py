"""Mounts: a layer's, counted by whoever uses it.

`mountpoints.json` says where each layer is mounted and how often; the first use mounts it, the last one undoes it. The
order of the locks: the storage lock while something is mounted, then the layers' and the mounts'.
"""

from __future__ import annotations

import os

from layerhold.drivers.base import MountOptions
from layerhold.errors import LayerNotMounted, LayerUnknown, ReadOnlyStore
from layerhold.records.model import MountRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from layerhold.drivers.base import Driver
    from layerhold.ids.mappings import IdMappings
    from layerhold.layers import Layer
    from layerhold.lock import LockFile
    from layerhold.records.model import LayerRecord
    from layerhold.tables import AnyTables, Views


class Mount:
    """A mounted layer: a path (`os.fspath`, `/`), and a block at whose end it is unmounted."""

    def __init__(self, layer: Layer, path: str) -> None:
        self.layer = layer
        self._path = path

    @property
    def path(self) -> Path:
        """Where the layer is mounted."""
        from pathlib import Path

        return Path(self._path)

    def unmount(self) -> bool:
        """Undo this mount; tell whether the layer is still mounted by others."""
        return self.layer.unmount()

    def __fspath__(self) -> str:
        return self._path

    def __str__(self) -> str:
        return self._path

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_error: object) -> None:
        self.unmount()


class Mounter:
    """Mounts the layers of a store, by their IDs. All its methods raise LayerUnknown."""

    def __init__(self, tables: AnyTables, driver: Driver, storage_lock: LockFile) -> None:
        self._tables = tables
        self._driver = driver
        self._storage_lock = storage_lock

    def mount(
        self,
        id: str,
        *,
        label: str,
        options: Sequence[str],
        read_only: bool,
        volatile: bool,
        mappings: IdMappings | None,
    ) -> str:
        """Mount a layer, or count one more use of its mount; give the path. `Layer.mount` says the rest."""
        from layerhold.comparing import at_mount

        with self._storage_lock.exclusive(), self._tables.writing("layers", "mounts") as editors:
            record = _there(editors, id)
            if record.read_only and not read_only:
                raise ReadOnlyStore("mounting read/only store images is not allowed", hint="mount it to be read only")
            mounted = editors.mounts.get(id)
            wanted = MountOptions(
                label=label or record.mount_label,
                options=tuple(options),
                read_only=read_only,
                volatile=volatile,
                mappings=at_mount(editors.layers, record.replace(mappings=record.mappings or mappings)),
            )
            path = self._driver.mount(id, wanted)
            count = mounted.count + 1 if mounted else 1
            editors.mounts.put(MountRecord(id=id, path=path, count=count))
        return path

    def unmount(self, id: str, *, force: bool) -> bool:
        """Undo one `mount` of a layer, or all of them with `force`; tell whether it is still mounted."""
        with self._tables.writing("layers", "mounts") as editors:
            _there(editors, id)
            mounted = editors.mounts.get(id)
            if mounted and mounted.count > 1 and not force:
                editors.mounts.put(mounted.replace(count=mounted.count - 1))
                return True
            self._driver.unmount(id)
            if mounted:
                editors.mounts.remove(id)
        return False

    def of(self, id: str) -> MountRecord | None:
        """Give where a layer is mounted and how often."""
        with self._tables.reading("layers", "mounts") as views:
            _there(views, id)
            return views.mounts.get(id)

    def parent_owners(self, id: str) -> tuple[list[int], list[int]]:
        """Say who owns directories above the mount point and is nobody in the layer's maps: users and groups, sorted.

        A layer without ID maps has nobody of that kind. Raises LayerNotMounted, OSError.
        """
        with self._tables.reading("layers", "mounts") as views:
            mappings, mounted = _there(views, id).mappings, views.mounts.get(id)
        if mappings is None:
            return [], []
        if mounted is None:
            raise LayerNotMounted()
        infos = [os.lstat(directory) for directory in _above(mounted.path)]
        uids, gids = mappings.outside([info.st_uid for info in infos], [info.st_gid for info in infos])
        return list(uids), list(gids)


def _there(views: Views, id: str) -> LayerRecord:
    record = views.layers.get(id)
    if record is None:
        raise LayerUnknown(id)
    return record


def _above(path: str) -> Iterator[str]:
    """Give the directories above `path`, the nearest first, without `/`."""
    while (path := os.path.dirname(path)) != "/":
        yield path
