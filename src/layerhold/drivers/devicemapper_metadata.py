"""The JSON files of the devicemapper driver, as Go has them in `<home>/metadata`.

    <id>                    the thin device of a layer; `base` is the one that all others are snapshots of
    deviceset-metadata      the device ID given last, and what is on the base device
    transaction-metadata    the change of the pool that was begun last (devicemapper_devices.py)

Keys that mean nothing here are kept when a file is written again. Each is written aside, synced and renamed.
"""

from __future__ import annotations

import json
import os

from layerhold.drivers.base import is_safe
from layerhold.errors import DamagedFile
from layerhold.tree.files import read_bytes, write_atomic
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

BASE = "base"
SET, TRANSACTION = "deviceset-metadata", "transaction-metadata"
RESERVED = frozenset({BASE, SET, TRANSACTION})
MOST_DEVICES = 1 << 24  # device IDs have 24 bits


class ThinDevice(Value):
    """A device of the pool. `size` is in bytes; `initialized`: of the base, its file system is whole."""

    id: int
    size: int
    transaction: int
    initialized: bool = False
    deleted: bool = False
    rest: tuple[tuple[str, Any], ...] = ()


class Transaction(Value):
    """A change of the pool that is begun: of the device `id`, whose file is `name` ("" for the base's)."""

    number: int
    name: str
    id: int
    rest: tuple[tuple[str, Any], ...] = ()


class SetRecord(Value):
    """What is kept of the whole set."""

    last_id: int = 0
    uuid: str = ""
    kind: str = ""
    rest: tuple[tuple[str, Any], ...] = ()


# The keys, in Go's order, and the fields that they are.
_DEVICE = {
    "device_id": "id",
    "size": "size",
    "transaction_id": "transaction",
    "initialized": "initialized",
    "deleted": "deleted",
}
_TRANSACTION = {"open_transaction_id": "number", "device_hash": "name", "device_id": "id"}
_SET = {"next_device_id": "last_id", "BaseDeviceUUID": "uuid", "BaseDeviceFilesystem": "kind"}
_NONE: Mapping[str, Any] = {
    "id": 0,
    "size": 0,
    "transaction": 0,
    "initialized": False,
    "deleted": False,
    "number": 0,
    "name": "",
    "last_id": 0,
    "uuid": "",
    "kind": "",
}


class Files:
    """The files in the directory `metadata` of a home."""

    def __init__(self, home: str) -> None:
        self.directory = os.path.join(home, "metadata")

    def path(self, name: str) -> str:
        """Say where the file of a layer's device is."""
        return os.path.join(self.directory, name)

    def device(self, name: str) -> ThinDevice | None:
        """Read the file of a device, by the name of its layer. Raises DamagedFile."""
        return self.device_at(self.path(name))

    def device_at(self, path: str) -> ThinDevice | None:
        """Read the file of a device, wherever it is. Raises DamagedFile."""
        found = _read(path, _DEVICE)
        if found is None:
            return None
        device = ThinDevice(**found)
        if not 0 <= device.id < MOST_DEVICES:
            raise DamagedFile(path, f"device_id: {device.id} is no ID of a device")
        return device

    def devices(self) -> Iterator[tuple[str, ThinDevice]]:
        """Give all devices with the names of their files, the base and deleted ones too. Raises DamagedFile."""
        for name in self.names():
            device = self.device(name)
            if device is not None:
                yield name, device

    def names(self) -> list[str]:
        """Name the files of devices."""
        names = os.listdir(self.directory)
        return sorted(name for name in names if name == BASE or is_layer(name))

    def write_device(self, path: str, device: ThinDevice) -> None:
        """Write the file of a device."""
        write_atomic(path, encoded(device, _DEVICE))

    def transaction(self) -> Transaction | None:
        """Read which change was begun last. Raises DamagedFile."""
        found = _read(self.path(TRANSACTION), _TRANSACTION)
        return None if found is None else Transaction(**found)

    def write_transaction(self, transaction: Transaction) -> None:
        """Note that a change is begun."""
        write_atomic(self.path(TRANSACTION), encoded(transaction, _TRANSACTION))

    def set_record(self) -> SetRecord:
        """Read what is kept of the whole set. Raises DamagedFile."""
        found = _read(self.path(SET), _SET)
        return SetRecord() if found is None else SetRecord(**found)

    def write_set(self, record: SetRecord) -> None:
        """Write what is kept of the whole set."""
        write_atomic(self.path(SET), encoded(record, _SET))


def is_layer(name: str) -> bool:
    """Tell whether a file of that name is a layer's: Go passes over others, too."""
    return is_safe(name, RESERVED) and not name.endswith(".migrated")


def encoded(value: ThinDevice | Transaction | SetRecord, keys: Mapping[str, str]) -> bytes:
    """Write a value as Go does: no blanks, its keys first."""
    found = {key: getattr(value, field) for key, field in keys.items()}
    text = json.dumps({**found, **dict(value.rest)}, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass")


def decoded(data: bytes, keys: Mapping[str, str]) -> dict[str, Any]:
    """Give the fields that JSON text has. Raises ValueError, which says what is wrong."""
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("it is not an object")
    fields: dict[str, Any] = {field: _NONE[field] for field in keys.values()}
    for key, field in keys.items():
        if key in found:
            value = found.pop(key)
            if type(value) is not type(fields[field]) or (type(value) is int and value < 0):
                raise ValueError(f"{key}: {value!r}")
            fields[field] = value
    return {**fields, "rest": tuple(found.items())}


def _read(path: str, keys: Mapping[str, str]) -> dict[str, Any] | None:
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return decoded(data, keys)
    except ValueError as error:
        raise DamagedFile(path, str(error)) from None
