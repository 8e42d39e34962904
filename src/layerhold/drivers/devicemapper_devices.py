"""The devices of a devicemapper home, and the transactions in which they are made and deleted.

The pool has a transaction number. To make or delete a device, the next number is noted with the device
(`transaction-metadata`), then the pool is told, then the device's file is written or removed, then the pool gets the
number. So a number in the note that the pool does not have yet belongs to a change that was cut short: it is undone,
by deleting the device and its file. Go's programs do the same, each when it starts.

Our own processes take turns by a lock on `<home>/devices.lock`. Go's have none: they rely on nobody else changing the
pool while they run. So a change that seems cut short may be one that a Go program is just doing: it gets a moment.

A device that is being made, or that is to be deleted, has its file in a directory aside (`<home>/tempdirs`) and not in
`metadata`, so Go's programs do not see it; in the note it is named by the way to its file (`../tempdirs/...`), by which
they would remove it, too. A device whose deletion the kernel refuses, since somebody has it open, gets a file with
`deleted` set in `metadata`: whoever comes next tries again, Go's programs too.
"""

from __future__ import annotations

import errno
import os
import time

from layerhold.blocks import contextmanager
from layerhold.drivers.devicemapper_metadata import BASE, MOST_DEVICES, RESERVED, TRANSACTION, ThinDevice, Transaction
from layerhold.errors import DriverError
from layerhold.linux import block, locks
from layerhold.tree.files import sweep_temporaries, unlink_if_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.drivers.devicemapper_metadata import Files
    from layerhold.drivers.devicemapper_pool import Pool

_GONE = (errno.ENODATA, errno.ENXIO)
_A_MOMENT = 1.0  # seconds
_LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class DeviceSet:
    """The devices of one home. But for `locked`, the caller holds the lock."""

    def __init__(self, home: str, pool: Pool, files: Files) -> None:
        self._home = home
        self._aside = os.path.join(home, "tempdirs")
        self._pool = pool
        self._files = files

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the home. It is not to be taken twice."""
        fd = os.open(os.path.join(self._home, "devices.lock"), _LOCK, 0o600)
        try:
            locks.lock(fd, exclusive=True, wait=True)
            yield
        finally:
            os.close(fd)

    # --- making and deleting

    def create(self, path: str, size: int) -> ThinDevice:
        """Make an empty device, whose file is `path`."""
        return self._make(path, size, "create_thin {}")

    def snapshot(self, name: str, source: ThinDevice, path: str, size: int) -> ThinDevice:
        """Make a device, whose file is `path`, that has all that `source` has; `name` is that one's."""
        self._pool.refuse_if_full()
        active = self._pool.is_active(name)
        if active:
            self._pool.suspend(name)
        try:
            return self._make(path, size, f"create_snap {{}} {source.id}")
        finally:
            if active:
                self._pool.resume(name)

    def delete(self, path: str, name: str) -> bool:
        """Delete a device by its file; False if it cannot be, since somebody has it open.

        It may be shown by `name`, that of its layer, or as one aside: it is let go before. Raises DamagedFile, OSError.
        """
        self.roll_back()
        device = self._files.device_at(path)
        if device is None:
            return True
        if self._is_another(path, device.id):  # nothing but this file speaks of it: Go's program gave its ID away
            os.unlink(path)
            return True
        shown = (aside_name(device.id), name)
        for one in shown:
            self._pool.deactivate(one)
        if self._pool.discards and not any(map(self._pool.is_active, shown)):
            self._discard(device)
        number = self._begin(path, device.id)
        try:
            self._pool.message(f"delete {device.id}")
        except OSError as error:
            if error.errno == errno.EBUSY:
                self._end(number)
                return False
            if error.errno not in _GONE:
                raise
        os.unlink(path)
        self._end(number)
        return True

    def _discard(self, device: ThinDevice) -> None:
        """Have the blocks of a device given back to what the pool consists of, which deleting it does not do."""
        name = aside_name(device.id)
        try:
            node = self._pool.activate(name, device.id, device.size)
        except OSError:  # there is no such device in the pool
            return
        try:
            block.discard(node)
        except OSError:  # it cannot be done there; the pool keeps the blocks for itself
            return
        finally:
            self._pool.deactivate(name, at_once=True)

    def put_off(self, path: str) -> None:
        """Leave a device that could not be deleted to whoever comes next, under a name that no layer has."""
        device = self._files.device_at(path)
        if device is not None:
            self._files.write_device(self._files.path(os.urandom(32).hex()), device.replace(deleted=True))
        unlink_if_there(path)

    def _make(self, path: str, size: int, message: str) -> ThinDevice:
        self.roll_back()
        used = {id for _path, id in self._known()}
        id = self._files.set_record().last_id
        for _ in range(MOST_DEVICES):
            id = (id + 1) % MOST_DEVICES
            if id in used:
                continue
            number = self._begin(path, id)
            begun = Transaction(number=number, name=self._name_of(path), id=id)
            try:
                self._pool.message(message.format(id))
            except FileExistsError:  # the pool has one that no file speaks of, and keeps it
                unlink_if_there(self._files.path(TRANSACTION))
                continue
            except OSError:
                self._undo(begun)
                raise
            try:
                device = ThinDevice(id=id, size=size, transaction=number)
                self._files.write_device(path, device)
                self._end(number)
            except BaseException:
                self._undo(begun)
                raise
            return device
        raise DriverError("devmapper: Unable to find a free device ID")

    # --- transactions

    def roll_back(self) -> None:
        """Undo a change that was cut short."""
        end = time.monotonic() + _A_MOMENT
        while (open_one := self._open_transaction()) is not None:
            if time.monotonic() >= end:
                self._undo(open_one)
                return
            time.sleep(0.05)

    def _open_transaction(self) -> Transaction | None:
        found = self._files.transaction()
        return found if found is not None and found.number > self._pool.state().transaction else None

    def _begin(self, path: str, id: int) -> int:
        """Note a change, and give its number."""
        number = self._pool.state().transaction + 1
        self._files.write_transaction(Transaction(number=number, name=self._name_of(path), id=id))
        return number

    def _end(self, number: int) -> None:
        self._pool.message(f"set_transaction_id {number - 1} {number}")

    def _undo(self, open_one: Transaction) -> None:
        path = self._path_of(open_one.name)
        if not self._is_another(path, open_one.id):
            for name in (os.path.basename(path), aside_name(open_one.id)):
                if name:
                    self._pool.deactivate(name)
            try:
                self._pool.message(f"delete {open_one.id}")
            except OSError as error:
                if error.errno == errno.EBUSY and path:
                    self.put_off(path)
                elif error.errno not in _GONE:
                    raise
        if path:
            unlink_if_there(path)
        unlink_if_there(self._files.path(TRANSACTION))
        sweep_temporaries(self._files.directory)

    def _name_of(self, path: str) -> str:
        """Name a file as the note does: so that it is found from the directory `metadata`."""
        name = os.path.relpath(path, self._files.directory)
        return "" if name == BASE else name

    def _path_of(self, name: str) -> str:
        """Give the file of a device by its name in the note; "" for a name that leads elsewhere."""
        path = os.path.normpath(os.path.join(self._files.directory, name or BASE))
        directory, last = os.path.split(path)
        if directory == self._files.directory:
            return path if last == BASE or last not in RESERVED else ""
        inside = os.path.dirname(directory) == self._aside
        return path if inside else ""

    # --- what there is

    def _known(self) -> Iterator[tuple[str, int]]:
        """Give the files of all devices, and the IDs: also of those aside."""
        for name, device in self._files.devices():
            yield self._files.path(name), device.id
        for path in self._files_aside():
            aside = self._files.device_at(path)
            if aside is not None:
                yield path, aside.id

    def _files_aside(self) -> Iterator[str]:
        try:
            directories = sorted(os.listdir(self._aside))
        except FileNotFoundError:
            return
        for name in directories:
            yield from device_files(os.path.join(self._aside, name))

    def _is_another(self, path: str, id: int) -> bool:
        """Tell whether a file of `metadata`, but not `path`, says that it has the device `id`."""
        return any(device.id == id and self._files.path(name) != path for name, device in self._files.devices())


def aside_name(id: int) -> str:
    """Name a device whose file is aside. It is not shown by its layer's name, that an older one may have."""
    return f"aside-{id}"


def device_files(directory: str) -> list[str]:
    """Give the files of devices in a directory aside."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [os.path.join(directory, name) for name in names if not name.startswith(".")]
