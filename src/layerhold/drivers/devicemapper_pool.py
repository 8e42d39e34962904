"""The thin pool of a devicemapper home, and the devices that are in use: what the kernel has of them.

The pool is one that the user made (`dm.thinpooldev`, or LVM's of a store that Go's program set up), or one over two
block devices (`dm.datadev`, `dm.metadatadev`) or two sparse files in `<home>/devicemapper`, on loop devices. Its name,
and those of all devices, begin with `container-<major>:<minor>-<inode>` of the home, as Go's. Whoever calls this holds
the lock of the home (devicemapper_devices.py).
"""

from __future__ import annotations

import errno
import os
import time

from layerhold.blocks import ExitStack
from layerhold.errors import DriverError, DriverNotSupported, DriverPrerequisites
from layerhold.linux import block, loop
from layerhold.linux.devmapper import Target, udev_is_there
from layerhold.tree.files import make_dirs
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from layerhold.drivers.devicemapper_options import DmOptions
    from layerhold.linux.devmapper import Device, Mapper

SECTOR = 512
_GIB = 1 << 30
_SIZES = {"data": 100 * _GIB, "metadata": 2 * _GIB}  # of new sparse files
_METADATA_BLOCK = 4096
_LOW_WATER = 32768
_BUSY_FOR = 20.0  # seconds that a device is tried to be removed, as Go's program does
_A_MOMENT = 2.0
_NO_MAPPER = "the kernel here has no device mapper, or not the part of it that makes thin devices"
_ADVICE = "load the module dm_thin_pool; where there is none, a store can be used on a machine that has it"


class PoolState(Value):
    """The state of a pool: blocks used and had of data and of metadata, and the sectors of a data block."""

    transaction: int
    metadata_used: int
    metadata_total: int
    data_used: int
    data_total: int
    block_sectors: int


class Pool:
    """The pool of one home. Methods raise OSError and DriverError."""

    def __init__(self, mapper: Mapper, home: str, options: DmOptions, lvm_pool: str = "") -> None:
        self._mapper = mapper
        self._options = options
        self._directory = os.path.join(home, "devicemapper")
        info = os.stat(home)
        self.prefix = f"container-{os.major(info.st_dev)}:{os.minor(info.st_dev)}-{info.st_ino}"
        self.is_given = bool(options.pool or lvm_pool)
        self.name = options.pool or lvm_pool or f"{self.prefix}-pool"
        self.discards = not (self.is_given or options.data_device) if options.discard is None else options.discard

    # --- the pool

    def open(self) -> bool:
        """See that the pool is there, and is one; make it if it is to be made, and tell so."""
        if self._kept(self.name) is None:
            if self.is_given:
                raise DriverError(f"devmapper: the thin pool {self.name} is not there")
            self._create()
            return True
        if (kind := self._mapper.state(self.name).kind) != "thin-pool":
            raise DriverError(f"devmapper: Device {self.name} is not a thin pool", hint=f"it is of the kind {kind}")
        return False

    def close(self) -> None:
        """Let the pool go, if it is not the user's own. One that is in use stays, and is used again."""
        if not self.is_given:
            self._remove(self.name, _A_MOMENT)

    def state(self) -> PoolState:
        """Ask for the pool's state."""
        target = self._mapper.state(self.name)
        try:
            transaction, metadata, data = target.words.split()[:3]
            metadata_used, metadata_total = map(int, metadata.split("/"))
            data_used, data_total = map(int, data.split("/"))
            sectors = target.sectors // data_total
            number = int(transaction)
        except (ValueError, ZeroDivisionError):
            raise DriverError(f"devmapper: the thin pool {self.name} cannot be used: {target.words}") from None
        return PoolState(
            transaction=number,
            metadata_used=metadata_used,
            metadata_total=metadata_total,
            data_used=data_used,
            data_total=data_total,
            block_sectors=sectors,
        )

    def message(self, text: str) -> None:
        """Tell the pool to make or delete a device, or the number of its transaction."""
        self._mapper.message(self.name, text)

    def refuse_if_full(self) -> None:
        """Raise DriverError if less is free than has to be (`dm.min_free_space`)."""
        percent = self._options.least_free
        if not percent:
            return
        state = self.state()
        for kind, used, total, what in (
            ("data", state.data_used, state.data_total, "space"),
            ("metadata", state.metadata_used, state.metadata_total, "metadata space"),
        ):
            least = max(total * percent // 100, 1)
            if total - used < least:
                raise DriverError(
                    f"devmapper: Thin Pool has {total - used} free {kind} blocks which is less than minimum required "
                    f"{least} free {kind} blocks. Create more free {what} in thin pool or use dm.min_free_space "
                    "option to change behavior"
                )

    def backing(self) -> tuple[str, str]:
        """Give the loop devices or others that hold data and metadata, where they are known; else ""."""
        if self.is_given:
            return "", ""
        data = self._options.data_device or loop.find(self.file("data"))
        return data, self._options.metadata_device or loop.find(self.file("metadata"))

    def file(self, name: str) -> str:
        """Say where the sparse file `data` or `metadata` is."""
        return os.path.join(self._directory, name)

    def has_files(self) -> bool:
        """Tell whether there are sparse files."""
        return os.path.exists(self.file("data"))

    def _create(self) -> None:
        with ExitStack() as stack:
            data, metadata = (
                given or stack.enter_context(loop.attached(self._sparse(name, size)))
                for name, given, size in (
                    ("data", self._options.data_device, self._options.data_size),
                    ("metadata", self._options.metadata_device, self._options.metadata_size),
                )
            )
            words = f"{metadata} {data} {self._options.block_sectors} {_LOW_WATER} 1 skip_block_zeroing"
            table = Target(sectors=block.size(data) // SECTOR, kind="thin-pool", words=words)
            try:
                self._mapper.create(self.name, table)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise DriverPrerequisites(f"{_NO_MAPPER}, or it refuses the table {words}", hint=_ADVICE) from None

    def _sparse(self, name: str, size: int) -> str:
        """Make a sparse file, or let the one that is there grow, if a size was set."""
        make_dirs(self._directory)
        path = self.file(name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            there = os.fstat(fd).st_size
            wanted = size or (0 if there else _SIZES[name])
            if there < wanted:
                os.ftruncate(fd, wanted)
        finally:
            os.close(fd)
        return path

    # --- the devices in it

    def device_name(self, name: str) -> str:
        """Give the name by which the kernel is to know a device."""
        return f"{self.prefix}-{name}"

    def activate(self, name: str, id: int, size: int) -> str:
        """Have the kernel show the device `id` by a name; give its node. If it is shown already, it stays so.

        Raises DriverError if another one has that name, and is in use: a layer's that was removed, or made anew.
        """
        full = self.device_name(name)
        found = self._kept(full)
        if found is not None and self._mapper.table(full).words.split()[-1:] != [str(id)]:
            self.deactivate(name, at_once=True)
            found = None
        if found is None:
            pool = self._mapper.find(self.name)
            number = pool.number if pool is not None else 0
            words = f"{os.major(number)}:{os.minor(number)} {id}"
            self._mapper.create(full, Target(sectors=size // SECTOR, kind="thin", words=words))
        elif found.suspended:
            self._mapper.resume(full)
        return self._mapper.node(full)

    def deactivate(self, name: str, *, at_once: bool = False) -> None:
        """Let a device go as soon as nothing has it open; with `at_once`, wait for that."""
        full = self.device_name(name)
        if self._options.deferred_removal and not at_once:
            _unless_gone(lambda: self._mapper.remove(full, deferred=True))
            return
        if not at_once and self.is_open(name):
            return
        if not self._remove(full, _BUSY_FOR):
            raise DriverError(f"devmapper: {full} is in use, and cannot be let go")

    def _remove(self, full: str, seconds: float) -> bool:
        """Remove a device; wait for some time while it is in use, and tell whether it is gone."""
        end = time.monotonic() + seconds
        while True:
            try:
                _unless_gone(lambda: self._mapper.remove(full))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                if time.monotonic() > end:
                    return False
                time.sleep(0.1)
            else:
                return True

    def _kept(self, full: str) -> Device | None:
        """Look a device up; if it was to go when nobody has it open any more, it is not to go now."""
        end = time.monotonic() + _BUSY_FOR
        while (found := self._mapper.find(full)) is not None and found.deferred:
            try:
                self._mapper.keep(full)
                return self._mapper.find(full)
            except OSError as error:
                # ENXIO: it has gone. EBUSY: it is just going.
                if error.errno not in (errno.ENXIO, errno.EBUSY) or time.monotonic() > end:
                    raise
                time.sleep(0.01)
        return found

    def is_active(self, name: str) -> bool:
        """Tell whether the kernel shows the device by that name."""
        return self._mapper.find(self.device_name(name)) is not None

    def is_open(self, name: str) -> bool:
        """Tell whether somebody has the device open, a mount too."""
        found = self._mapper.find(self.device_name(name))
        return found is not None and found.open_count > 0

    def suspend(self, name: str) -> None:
        """Hold a device up, that a snapshot may be taken of it."""
        self._mapper.suspend(self.device_name(name))

    def resume(self, name: str) -> None:
        """Let a device go on."""
        self._mapper.resume(self.device_name(name))


def refuse_without(mapper: Mapper) -> None:
    """Raise DriverNotSupported where there is no device mapper, or it is too old."""
    try:
        version = mapper.version()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise DriverNotSupported("devmapper: only root may use it") from None
        raise DriverNotSupported(_NO_MAPPER, hint=_ADVICE) from None
    if version < (4, 27, 0):
        raise DriverNotSupported(f"devmapper: {version[0]}.{version[1]} of the kernel's device mapper is too old")


def synced_by_udev() -> str:
    """Say what `status` has as "Udev Sync Supported"."""
    return "true" if udev_is_there() else "false"


def bytes_of(state: PoolState) -> tuple[int, int]:
    """Give how many bytes a data block and a metadata block have."""
    return state.block_sectors * SECTOR, _METADATA_BLOCK


def _unless_gone(remove: Callable[[], None]) -> None:
    try:
        remove()
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
