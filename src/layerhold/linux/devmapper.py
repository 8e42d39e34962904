"""Device mapper: block devices made of others (<linux/dm-ioctl.h>), by ioctls on /dev/mapper/control.

A device has a name and a table that says what its sectors are; it is made without one, gets one loaded, and shows it
once it is resumed. Its node is /dev/mapper/<name>. That is udev's work; where there is no udev, or it does not do it in
time, the node is made and removed here, as libdevmapper does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time

from layerhold.values import Value

DIRECTORY = "/dev/mapper"
LONGEST_NAME = 127

_HEADER = struct.Struct("=3IIIIiIIIQ128s129s7x")  # struct dm_ioctl
_TARGET = struct.Struct("=QQiI16s")  # struct dm_target_spec
_SECTOR = struct.Struct("=Q")  # struct dm_target_msg, before its text
_SIZE = 16384
_VERSION, _CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD, _TABLE_STATUS, _MESSAGE = 0, 3, 4, 6, 7, 9, 12, 14
_READ_WRITE, _KIND = 3, 0xFD

# Bits of `flags`.
_DO_SUSPEND = 1 << 1
_OF_TABLE = 1 << 4  # the table itself is wanted, not the state of what it is made of
_DEFERRED = 1 << 17

_FOR_UDEV = 2.0  # seconds


class Device(Value):
    """What the kernel says of a device. `number` is that of its node; `open_count` counts mounts, too."""

    number: int
    open_count: int
    suspended: bool
    deferred: bool  # it goes when it is closed for the last time


class Target(Value):
    """The first line of a table, or of its state: so many sectors of 512 bytes are of a kind."""

    sectors: int
    kind: str
    words: str


class Mapper:
    """The kernel's device mapper. Methods raise OSError: ENXIO for a device that is not there, EBUSY, ..."""

    def version(self) -> tuple[int, int, int]:
        """Say which version of the interface the kernel has. Raises FileNotFoundError if it has none."""
        major, minor, patch = _ask(_VERSION)[0][:3]
        return int(major), int(minor), int(patch)

    def find(self, name: str) -> Device | None:
        """Look a device up."""
        try:
            header, _rest = _ask(_STATUS, name)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise
        flags = header[7]
        return Device(
            number=header[10],
            open_count=header[6],
            suspended=bool(flags & _DO_SUSPEND),
            deferred=bool(flags & _DEFERRED),
        )

    def create(self, name: str, table: Target) -> None:
        """Make a device, and its node; what fails leaves none."""
        _ask(_CREATE, name)
        try:
            words = table.words.encode() + b"\0"
            words += bytes(-len(words) % 8)
            spec = _TARGET.pack(0, table.sectors, 0, _TARGET.size + len(words), table.kind.encode())
            _ask(_LOAD, name, payload=spec + words, targets=1)
            header, _rest = _ask(_SUSPEND, name)
            _make_node(name, header[10])
        except BaseException:
            _ask(_REMOVE, name)
            raise

    def remove(self, name: str, *, deferred: bool = False) -> None:
        """Remove a device; with `deferred`, when it is not open any more."""
        try:
            _ask(_REMOVE, name, flags=_DEFERRED if deferred else 0)
        finally:
            if self.find(name) is None:
                _remove_node(name)

    def keep(self, name: str) -> None:
        """Take back that a device is to be removed."""
        self.message(name, "@cancel_deferred_remove")

    def suspend(self, name: str) -> None:
        """Hold up a device: what is written is written out, and nothing more is, until `resume`."""
        _ask(_SUSPEND, name, flags=_DO_SUSPEND)

    def resume(self, name: str) -> None:
        """Let a device go on."""
        _ask(_SUSPEND, name)

    def message(self, name: str, text: str) -> None:
        """Tell a device something."""
        _ask(_MESSAGE, name, payload=_SECTOR.pack(0) + text.encode() + b"\0")

    def state(self, name: str) -> Target:
        """Give the state of a device."""
        return _first_target(*_ask(_TABLE_STATUS, name))

    def table(self, name: str) -> Target:
        """Give the table of a device."""
        return _first_target(*_ask(_TABLE_STATUS, name, flags=_OF_TABLE))

    def node(self, name: str) -> str:
        """Give the path of a device's node."""
        return os.path.join(DIRECTORY, name)


def udev_is_there() -> bool:
    """Tell whether udev looks after nodes here."""
    return os.path.exists("/run/udev/control")


def _ask(
    command: int, name: str = "", *, flags: int = 0, payload: bytes = b"", targets: int = 0
) -> tuple[tuple[int, ...], bytes]:
    """Do one ioctl; give the header of the answer, and what is behind it."""
    text = os.fsencode(name)
    if len(text) > LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, "the name of the device is too long", name)
    size = max(_SIZE, _HEADER.size + len(payload))
    request = bytearray(size)
    _HEADER.pack_into(request, 0, 4, 0, 0, size, _HEADER.size, targets, 0, flags, 0, 0, 0, text, b"")
    request[_HEADER.size : _HEADER.size + len(payload)] = payload
    fd = _open_control()
    try:
        fcntl.ioctl(fd, _READ_WRITE << 30 | _HEADER.size << 16 | _KIND << 8 | command, request)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None
    finally:
        os.close(fd)
    header = _HEADER.unpack_from(request)
    return header, bytes(request[header[4] : header[3]])


def _open_control() -> int:
    path = os.path.join(DIRECTORY, "control")
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        minor = _minor_of_control()
        os.makedirs(DIRECTORY, 0o755, exist_ok=True)
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, minor))
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _minor_of_control() -> int:
    with open("/proc/misc") as file:
        for line in file:
            number, name = line.split()
            if name == "device-mapper":
                return int(number)
    raise FileNotFoundError(errno.ENOENT, "the kernel has no device mapper", os.path.join(DIRECTORY, "control"))


def _first_target(header: tuple[int, ...], rest: bytes) -> Target:
    if not header[5]:
        return Target(sectors=0, kind="", words="")
    _start, sectors, _status, _next, kind = _TARGET.unpack_from(rest)
    words = rest[_TARGET.size :].partition(b"\0")[0]
    return Target(sectors=sectors, kind=kind.rstrip(b"\0").decode(), words=words.decode())


# --- nodes


def _make_node(name: str, number: int) -> None:
    path = os.path.join(DIRECTORY, name)
    end = time.monotonic() + _FOR_UDEV
    while udev_is_there() and time.monotonic() < end and not _is_node(path, number):
        time.sleep(0.01)
    if not _is_node(path, number):
        if os.path.lexists(path):
            os.unlink(path)
        os.mknod(path, stat.S_IFBLK | 0o600, number)


def _remove_node(name: str) -> None:
    """Remove a node, but not a link of udev's."""
    path = os.path.join(DIRECTORY, name)
    try:
        if stat.S_ISBLK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return


def _is_node(path: str, number: int) -> bool:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISBLK(info.st_mode) and info.st_rdev == number
