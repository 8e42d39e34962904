"""The base device of a devicemapper home: an empty file system, of which layers without a parent are snapshots.

Its UUID is in `deviceset-metadata`, and is looked at when the pool comes into use: another one is another pool's.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from layerhold.drivers.devicemapper_metadata import BASE
from layerhold.drivers.devicemapper_mounts import detached
from layerhold.drivers.sizes import shown_size
from layerhold.errors import DriverError, DriverPrerequisites
from layerhold.linux import block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layerhold.drivers.devicemapper_devices import DeviceSet
    from layerhold.drivers.devicemapper_metadata import Files, ThinDevice
    from layerhold.drivers.devicemapper_options import DmOptions
    from layerhold.drivers.devicemapper_pool import Pool

_SIZE = 10 << 30
_MKFS = {"ext4": ("-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"), "xfs": ("-q",)}


class Base:
    """The base device. The caller holds the lock of the home."""

    def __init__(self, pool: Pool, devices: DeviceSet, files: Files, options: DmOptions) -> None:
        self._pool = pool
        self._devices = devices
        self._files = files
        self._options = options

    def prepare(self, *, verify: bool) -> None:
        """Make the base, or see that it is the right one; let it grow to `dm.basesize`. Raises DriverError, OSError."""
        base = self._files.device(BASE)
        if base is None or not base.initialized or base.deleted:
            self._refuse_used_pool(base)
            if base is not None:
                self._remove()
            self._make()
            return
        if verify:
            self._verify(base)
        if self._options.base_size:
            self._grow(base)

    def _refuse_used_pool(self, base: ThinDevice | None) -> None:
        """Raise DriverError if the pool that was given has something in it, which cannot be of this home."""
        if base is None and self._pool.is_given:
            state = self._pool.state()
            name = self._pool.name
            if state.data_used:
                raise DriverError(
                    f"devmapper: Unable to take ownership of thin-pool ({name}) that already has used data blocks"
                )
            if state.transaction:
                raise DriverError(
                    f"devmapper: Unable to take ownership of thin-pool ({name}) with non-zero transaction ID"
                )

    def _remove(self) -> None:
        """Remove a base that is not whole."""
        self._pool.deactivate(BASE, at_once=True)
        if not self._devices.delete(self._files.path(BASE), BASE):
            raise DriverError("devmapper: the base device is not whole, and cannot be removed: it is in use")

    def _make(self) -> None:
        kind = self._options.kind or _usual_kind()
        program = shutil.which(f"mkfs.{kind}")
        if program is None:
            raise DriverPrerequisites(f"devmapper: mkfs.{kind} is not installed, to make the base device with")
        path = self._files.path(BASE)
        device = self._devices.create(path, self._options.base_size or _SIZE)
        node = self._pool.activate(BASE, device.id, device.size)
        try:
            words = [program, *_MKFS[kind], *self._options.mkfs_words, node]
            done = subprocess.run(
                words, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
            )
            found = block.probe(node)
            if done.returncode or found is None:
                raise DriverError(f"devmapper: mkfs.{kind} failed: {done.stderr.strip()}")
        finally:
            self._pool.deactivate(BASE, at_once=True)
        self._files.write_set(self._files.set_record().replace(last_id=device.id, uuid=found.uuid, kind=kind))
        self._files.write_device(path, device.replace(initialized=True))

    def _verify(self, base: ThinDevice) -> None:
        node = self._pool.activate(BASE, base.id, base.size)
        try:
            found = block.probe(node)
        finally:
            self._pool.deactivate(BASE)
        record = self._files.set_record()
        uuid = found.uuid if found is not None else ""
        if not record.uuid:
            self._files.write_set(record.replace(uuid=uuid, kind=found.kind if found is not None else ""))
        elif record.uuid != uuid:
            raise DriverError(
                f"devmapper: Base Device UUID and Filesystem verification failed: devmapper: Current Base Device "
                f"UUID:{uuid} does not match with stored UUID:{record.uuid}. Possibly using a different thin pool than "
                "last invocation"
            )

    def _grow(self, base: ThinDevice) -> None:
        wanted = self._options.base_size
        if wanted < base.size:
            raise DriverError(f"devmapper: Base device size cannot be smaller than {shown_size(base.size)}")
        if wanted == base.size:
            return
        # First: a file system that is larger than its device could not be mounted any more.
        self._files.write_device(self._files.path(BASE), base.replace(size=wanted))
        try:
            self._grow_file_system(base.id, wanted)
        except BaseException:
            self._files.write_device(self._files.path(BASE), base)  # so that the next start tries again
            raise

    def _grow_file_system(self, device: int, size: int) -> None:
        node = self._pool.activate(BASE, device, size)
        try:
            fd, kind = detached(node, ())
            try:
                block.grow(f"/proc/self/fd/{fd}/.", kind, size)
            finally:
                os.close(fd)
        finally:
            self._pool.deactivate(BASE, at_once=True)


def _usual_kind() -> str:
    """Choose xfs, where the kernel and a program know it."""
    with open("/proc/filesystems") as file:
        known = {line.split()[-1] for line in file}
    return "xfs" if "xfs" in known and shutil.which("mkfs.xfs") else "ext4"
