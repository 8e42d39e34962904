"""The zfs driver: each layer is a dataset with all files of all layers below it, a clone of its parent's.

    <dataset>/<id>                            the layer (zfs_datasets.py)
    <home>/graph/<id>                         where it is mounted
    <home>/tempdirs/lock-<n>, temp-dir-<n>/   who has datasets aside (zfs_aside.py)

A new layer is a clone of a snapshot of its parent, made at once whatever the parent's size. It is made aside, and
renamed into its place; removing one is renaming it aside, and destroying it when the locks are released. What is still
in use then is destroyed by whoever opens the store later.

Datasets are made, destroyed and, when the driver is opened, listed by the programs of OpenZFS; mounting and reading a
layer starts none.
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.drivers import home_mount
from layerhold.drivers.base import Features
from layerhold.drivers.sizes import parse_size
from layerhold.drivers.whole_trees import furnish
from layerhold.drivers.zfs_aside import DatasetBuild, DatasetsAside
from layerhold.drivers.zfs_datasets import CommandFailed
from layerhold.drivers.zfs_reading import ZfsLayers
from layerhold.errors import BadConfig, LayerWithoutFiles
from layerhold.tree.files import make_dirs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from layerhold.drivers.base import Build, LayerSpec, MountOptions
    from layerhold.progress import Callback, Meter
    from layerhold.tree.trash import Bin


class ZfsDriver(ZfsLayers):
    """Layers as datasets, which are made, mounted and removed."""

    features = Features(quota=True)

    def __init__(self, home: str, options: Sequence[str] = (), *, additional: Sequence[str] = ()) -> None:
        for other in additional:
            raise BadConfig(f'unknown option "imagestore" ("imagestore={os.path.dirname(other)}")')
        super().__init__(home, options)
        self._aside = DatasetsAside(home, self._datasets)
        make_dirs(self._graph)
        home_mount.mount_home(home)
        self._aside.sweep(self._found_aside)

    # --- making

    @contextmanager
    def building(
        self, id: str, parent: str | None, spec: LayerSpec, progress: Callback | None = None
    ) -> Iterator[Build]:
        """Make a clone of the parent aside, or an empty dataset."""
        with self._built(self._named(id), parent, _quota(spec)) as build:
            furnish(build.contents.path, parent, spec, progress)
            yield build

    def duplicating(
        self, id: str, template: str, spec: LayerSpec, progress: Callback | None = None
    ) -> AbstractContextManager[Build]:
        """Make a clone of the template aside."""
        return self.building(id, template, spec, progress)

    def rebuilding(self, id: str, progress: Callback | None = None) -> AbstractContextManager[Build]:  # noqa: ARG002
        """Make a clone of the layer aside, to be changed and put back in its place."""
        return self._built(id, id, self._quota_of(id))

    @contextmanager
    def _built(self, id: str, source: str | None, quota: int) -> Iterator[Build]:
        with self._aside.open() as temporary:
            note = self._aside.made(temporary, source or "")
            if source is None:
                self._datasets.create(self._aside.name(note), quota=quota)
            else:
                self._clone(source, self._aside.name(note), quota)
            build = DatasetBuild(self._aside, temporary, note, id)
            try:
                yield build
            finally:
                build.close()

    def _quota_of(self, id: str) -> int:
        with self._naming(id):
            return self._datasets.quota(self._named(id))

    def _clone(self, source: str, name: str, quota: int) -> None:
        with self._naming(source):
            self._datasets.clone(self._named(source), name, quota=quota)

    @contextmanager
    def _naming(self, id: str) -> Iterator[None]:
        """Have it be LayerWithoutFiles that there is no dataset for `id`."""
        try:
            yield
        except CommandFailed as error:
            if error.is_missing:
                raise LayerWithoutFiles(id, f"dataset {self._datasets.full(id)}") from error
            raise

    # --- mounting

    def mount(self, id: str, options: MountOptions) -> str:
        """Mount the layer on `graph/<id>`."""
        from layerhold import labels
        from layerhold.linux import mounts

        point = self.path(id)
        if self.is_mounted(id):
            return point
        label = labels.mount_option(options.label)
        words = (*(options.options or self._words), *((label,) if label else ()))
        fd = self._shown(id, words, read_only=options.read_only)
        try:
            make_dirs(point, 0o755)
            mounts.attach(fd, point)
        finally:
            os.close(fd)
        return point

    def unmount(self, id: str) -> None:
        """Unmount the layer."""
        if self.is_mounted(id):
            from layerhold.linux import mounts

            mounts.umount(self.path(id), mounts.MNT_DETACH)
            os.rmdir(self.path(id))

    # --- removing

    def trash(self, meter: Meter | None = None) -> AbstractContextManager[Bin]:
        """Open a directory aside for notes of the datasets that are to be destroyed."""
        return self._aside.open(meter)

    def remove(self, id: str, trash: Bin) -> None:
        """Unmount the layer, and rename its dataset aside; what is no layer for certain is left where it is."""
        self.unmount(id)
        if self._datasets.can_be(id) and self._datasets.is_layer(id):
            self._aside.take(id, trash)

    def sweep(self) -> None:
        """Destroy what a crash left aside, and what was in use when it was removed."""
        self._aside.sweep(self._datasets.names()[1])

    def shutdown(self) -> None:
        """Unmount all layers, and undo the bind mount of the home."""
        for name in os.listdir(self._graph):
            self.unmount(name)
        home_mount.unmount_home(self.home)


def _quota(spec: LayerSpec) -> int:
    """Say how much a new layer may hold; 0: as much as there is room for. Raises BadConfig."""
    size = 0
    for key, value in spec.storage_options:
        if key.lower() != "size":
            raise BadConfig(f"Unknown option {key}")
        size = parse_size(value)
    return size
