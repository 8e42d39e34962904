"""The devicemapper driver: each layer is a thin device with a file system of its own, a snapshot of its parent's.

    <home>/metadata/                          a small file for each device (devicemapper_metadata.py)
    <home>/devicemapper/data, metadata        what the pool consists of, unless it is on other devices
    <home>/mnt/<id>/rootfs                    where a layer is mounted
    <home>/tempdirs/lock-<n>, temp-dir-<n>/   the files of devices that are being made, and of those to be deleted
    <home>/devices.lock                       who changes the pool (devicemapper_devices.py)

A new layer is a snapshot that is made aside: its device is in the pool, its file in `tempdirs`. It is put in its place
by moving that file. Removing a layer is moving its file aside, and deleting its device then. A crash leaves devices
whose files are aside, which the next sweep deletes, or a transaction that is not finished, which the next one undoes.

Layers are read through mounts that are nowhere, so no mount point or count is needed; a device is let go (`deferred`)
when nothing has it open any more, whoever that is.
"""

from __future__ import annotations

import os
from contextlib import suppress

from layerhold.blocks import contextmanager
from layerhold.drivers import home_mount
from layerhold.drivers.base import ERASE, Contents, Features
from layerhold.drivers.devicemapper_base import Base
from layerhold.drivers.devicemapper_devices import DeviceSet, aside_name, device_files
from layerhold.drivers.devicemapper_metadata import BASE, RESERVED, Files, is_layer
from layerhold.drivers.devicemapper_mounts import TREE
from layerhold.drivers.devicemapper_options import parse_dm
from layerhold.drivers.devicemapper_pool import Pool, bytes_of, refuse_without, synced_by_udev
from layerhold.drivers.devicemapper_shown import Shown, ShownBuild
from layerhold.drivers.sizes import parse_size, shown_size
from layerhold.drivers.whole_trees import furnish
from layerhold.errors import BadConfig, DamagedFile, DriverNotSupported, InvalidID, LayerWithoutFiles
from layerhold.linux.devmapper import Mapper
from layerhold.linux.idmap import in_user_namespace
from layerhold.tree.files import make_dirs, remove_tree
from layerhold.tree.trash import Aside, Shredder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from layerhold.drivers.base import Build, LayerSpec, MountOptions
    from layerhold.drivers.devicemapper_metadata import ThinDevice
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback, Meter
    from layerhold.tree.trash import Bin

_LVM_POOL = "storage-thinpool"  # that Go's program makes, if it is to set LVM up


class DevicemapperDriver:
    """Layers as thin devices of one pool."""

    name = "devicemapper"
    features = Features(quota=True)
    reserved = RESERVED
    squash = False

    def __init__(self, home: str, options: Sequence[str] = (), *, additional: Sequence[str] = ()) -> None:
        self._options = parse_dm(options)
        for other in additional:
            raise BadConfig(f"devmapper: Unknown option imagestore={os.path.dirname(other)}")
        if os.geteuid() != 0 or in_user_namespace():
            raise DriverNotSupported("devmapper: only root may use it")
        refuse_without(Mapper())
        self.home = home
        self._mnt = os.path.join(home, "mnt")
        self._files = Files(home)
        make_dirs(self._files.directory)
        lvm = os.path.exists(os.path.join(home, "setup-config.json"))
        self._pool = Pool(Mapper(), home, self._options, _LVM_POOL if lvm else "")
        self._devices = DeviceSet(home, self._pool, self._files)
        self._aside = Aside(os.path.join(home, "tempdirs"), remove=self._remove_aside)
        with self._devices.locked():
            made = self._pool.open()
            try:
                self._devices.roll_back()
                Base(self._pool, self._devices, self._files, self._options).prepare(verify=made or self._pool.is_given)
            except BaseException:
                if made:
                    self._pool.close()
                raise
        home_mount.mount_home(home)
        self.sweep()

    # --- making

    @contextmanager
    def building(
        self, id: str, parent: str | None, spec: LayerSpec, progress: Callback | None = None
    ) -> Iterator[Build]:
        """Make a snapshot aside, of the parent or of the empty base."""
        self._checked(id)
        source = BASE if parent is None else parent
        with self._built(id, source, self._size(spec, self._there(source))) as build:
            furnish(build.contents.path, parent, spec, progress)
            yield build

    def duplicating(
        self, id: str, template: str, spec: LayerSpec, progress: Callback | None = None
    ) -> AbstractContextManager[Build]:
        """Make a snapshot of the template aside."""
        return self.building(id, template, spec, progress)

    def rebuilding(self, id: str, progress: Callback | None = None) -> AbstractContextManager[Build]:  # noqa: ARG002
        """Make a snapshot of the layer aside, to be changed and put back in its place."""
        return self._built(id, id, self._there(id).size)

    @contextmanager
    def _built(self, id: str, source: str, size: int) -> Iterator[ShownBuild]:
        with self._aside.open() as temporary:
            path = temporary.place()
            with self._devices.locked():
                origin = self._there(source)
                device = self._devices.snapshot(source, origin, path, size)
            shown = self._shown(aside_name(device.id), device, id)
            try:
                if size > origin.size:
                    shown.grow(size)
                yield ShownBuild(shown, path, self.path(id))
            finally:
                shown.close()

    def _size(self, spec: LayerSpec, source: ThinDevice) -> int:
        """Say how large a new layer may become. Raises BadConfig."""
        size = source.size
        for key, value in spec.storage_options:
            if key.lower() != "size":
                raise BadConfig(f"Unknown option {key.lower()}")
            size = parse_size(value) or source.size
        if size < source.size:
            raise BadConfig(f"devmapper: Container size cannot be smaller than {shown_size(source.size)}")
        return size

    # --- reading and mounting

    @contextmanager
    def contents(
        self,
        id: str,
        *,
        against: str | None,  # noqa: ARG002 - a whole tree always
        mappings: IdMappings | None = None,  # noqa: ARG002 - the files have the right owners
    ) -> Iterator[Contents]:
        """Mount the layer nowhere, and give its tree."""
        shown = self._shown(id, self._there(id), id, read_only=True)
        try:
            yield Contents(path=shown.tree, deletions=ERASE)
        finally:
            shown.close()

    def own_files(self, id: str) -> AbstractContextManager[Contents]:
        """Give the layer's tree."""
        return self.contents(id, against=None)

    def maps_at_mount(self) -> bool:
        """Say no: files have the owners that they are to have."""
        return False

    def mount(self, id: str, options: MountOptions) -> str:
        """Mount the layer on `mnt/<id>`."""
        from layerhold import labels
        from layerhold.linux import mounts

        device = self._there(id)
        point = os.path.join(self._mnt, id)
        if self.is_mounted(id):
            return os.path.join(point, TREE)
        label = labels.mount_option(options.label)
        words = (*(options.options or self._options.mount_options), *((label,) if label else ()))
        shown = self._shown(id, device, id, options=words, read_only=options.read_only)
        try:
            make_dirs(self._mnt, 0o755)
            make_dirs(point, 0o755)
            mounts.attach(shown.fd, point)
        finally:
            shown.close()
        return os.path.join(point, TREE)

    def unmount(self, id: str) -> None:
        """Unmount the layer, and let its device go."""
        if self.is_mounted(id):
            from layerhold.linux import mounts

            point = os.path.join(self._mnt, id)
            mounts.umount(point, mounts.MNT_DETACH)
            os.rmdir(point)
            with self._devices.locked():
                self._pool.deactivate(id)

    def is_mounted(self, id: str) -> bool:
        """Tell whether something is mounted on `mnt/<id>`: it is on another device than the directory above it."""
        if not is_layer(id):
            return False
        try:
            return os.stat(os.path.join(self._mnt, id)).st_dev != os.stat(self._mnt).st_dev
        except FileNotFoundError:
            return False

    # --- removing

    def trash(self, meter: Meter | None = None) -> AbstractContextManager[Bin]:
        """Open a directory aside for the files of devices that are to be deleted."""
        return self._aside.open(meter)

    def remove(self, id: str, trash: Bin) -> None:
        """Move the file of the layer's device into the trash."""
        if not is_layer(id):
            return
        path = self._files.path(id)
        if isinstance(trash, Shredder) and os.path.exists(path):
            self._delete(path, id)
        trash.take(path)

    def _remove_aside(self, directory: str, meter: Meter | None = None) -> None:
        for path in device_files(directory):
            with suppress(DamagedFile):  # it says nothing of a device any more
                self._delete(path, os.path.basename(path).partition("-")[2])
        remove_tree(directory, meter)

    def _delete(self, path: str, name: str) -> None:
        """Delete a device by its file; one in use is put off: its layer's record has gone already."""
        with self._devices.locked():
            if not self._devices.delete(path, name):
                self._devices.put_off(path)

    # --- what there is

    def path(self, id: str) -> str:
        """Say where the file of the layer's device is. Raises InvalidID for what cannot be a layer's name."""
        return self._files.path(self._checked(id))

    def exists(self, id: str) -> bool:
        """Tell whether there is a device for `id`, which is not to be deleted."""
        return is_layer(id) and self._is_kept(id)

    def ids(self) -> Iterator[str]:
        """List the layers that have devices."""
        for name in self._files.names():
            if name != BASE and self._is_kept(name):
                yield name

    def describe(self) -> Sequence[tuple[str, str]]:
        """Say what Go's `status` says."""
        state = self._pool.state()
        block_size, metadata_size = bytes_of(state)
        record, base = self._files.set_record(), self._files.device(BASE)
        deleted = sum(device.deleted for _name, device in self._files.devices())
        data, metadata = self._pool.backing()
        files = [self._pool.file(name) if self._pool.has_files() else "" for name in ("data", "metadata")]
        data_free = _free((state.data_total - state.data_used) * block_size, files[0])
        metadata_free = _free((state.metadata_total - state.metadata_used) * metadata_size, files[1])
        least = state.data_total * self._options.least_free // 100 * block_size
        rows = [
            ("Pool Name", self._pool.name),
            ("Pool Blocksize", shown_size(block_size)),
            ("Base Device Size", shown_size(base.size if base is not None else 0)),
            ("Backing Filesystem", record.kind),
            ("Data file", data),
            ("Metadata file", metadata),
            ("Data Space Used", shown_size(state.data_used * block_size)),
            ("Data Space Total", shown_size(state.data_total * block_size)),
            ("Data Space Available", shown_size(data_free)),
            ("Metadata Space Used", shown_size(state.metadata_used * metadata_size)),
            ("Metadata Space Total", shown_size(state.metadata_total * metadata_size)),
            ("Metadata Space Available", shown_size(metadata_free)),
            ("Thin Pool Minimum Free Space", shown_size(least)),
            ("Udev Sync Supported", synced_by_udev()),
            ("Deferred Removal Enabled", _word(self._options.deferred_removal)),
            ("Deferred Deletion Enabled", _word(self._options.deferred_deletion)),
            ("Deferred Deleted Device Count", str(deleted)),
        ]
        titles = ("Data loop file", "Metadata loop file")
        rows += [(title, file) for title, file in zip(titles, files, strict=True) if file]
        return (*rows, ("Library Version", "none"))

    def locations(self, id: str) -> Mapping[str, str]:
        """Say which device the layer is."""
        device = self._there(id)
        name = self._pool.device_name(id)
        return {"DeviceId": str(device.id), "DeviceName": name, "DeviceSize": str(device.size)}

    def sweep(self) -> None:
        """Delete the devices that a crash left aside, and those that could not be deleted before."""
        self._aside.sweep()
        for name in self._files.names():
            if name != BASE and not self._is_kept(name):
                with self._devices.locked():
                    self._devices.delete(self._files.path(name), name)

    def shutdown(self) -> None:
        """Unmount all layers, let all devices and the pool go, and undo the bind mount of the home."""
        for name in self._files.names():
            if name != BASE:
                self.unmount(name)
        with self._devices.locked():
            for name in self._files.names():
                self._pool.deactivate(name)
            self._pool.close()
        home_mount.unmount_home(self.home)

    # --- helpers

    def _shown(
        self, name: str, device: ThinDevice, id: str, *, options: Sequence[str] | None = None, read_only: bool = False
    ) -> Shown:
        words = self._options.mount_options if options is None else options
        retries = self._options.xfs_retries
        return Shown(
            self._pool, self._devices, name, device, id=id, options=words, retries=retries, read_only=read_only
        )

    def _checked(self, id: str) -> str:
        if not is_layer(id):
            raise InvalidID(f"{id!r} is no ID that a layer can have")
        return id

    def _is_kept(self, name: str) -> bool:
        try:
            device = self._files.device(name)
        except DamagedFile:
            return True
        return device is not None and not device.deleted

    def _there(self, name: str) -> ThinDevice:
        """Give the device of a layer, or the base. Raises InvalidID, LayerWithoutFiles, DamagedFile."""
        device = self._files.device(name if name == BASE else self._checked(name))
        if device is None or device.deleted:
            raise LayerWithoutFiles(name, f"devmapper: Unknown device {name}")
        return device


def _free(size: int, file: str) -> int:
    """Say how much is free: no more than there is where the sparse file is."""
    if not file:
        return size
    there = os.statvfs(file)
    return min(size, there.f_bfree * there.f_bsize)


def _word(flag: bool) -> str:
    return "true" if flag else "false"
