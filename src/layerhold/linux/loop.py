"""Loop devices: files as block devices (<linux/loop.h>)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from layerhold.blocks import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SET_FD, _CLR_FD, _SET_STATUS, _GET_STATUS, _GET_FREE = 0x4C00, 0x4C01, 0x4C04, 0x4C05, 0x4C82
_INFO = struct.Struct("=5Q4I64s64s32s16x")  # struct loop_info64
_AUTOCLEAR = 4
_TRIES = 64  # somebody else may take the device that was free


@contextmanager
def attached(path: str) -> Iterator[str]:
    """Give the loop device of a file; one that is made for it goes when nothing has it open any more."""
    found = _open_one_of(path)
    device, fd = _attach(path) if found is None else found
    try:
        yield device
    finally:
        os.close(fd)


def find(path: str) -> str:
    """Give the loop device that a file has already, or ""."""
    found = _open_one_of(path)
    if found is None:
        return ""
    os.close(found[1])
    return found[0]


def _open_one_of(path: str) -> tuple[str, int] | None:
    """Look for the loop device that a file has, and open it: what is open does not go."""
    info = os.stat(path)
    for name in sorted(os.listdir("/sys/block")):
        if name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop"):
            device = f"/dev/{name}"
            try:
                fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)  # of others, some cannot be written to
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENXIO):  # it is just being let go
                    raise
                continue
            try:
                is_its = _backing(fd) == (info.st_dev, info.st_ino)
            except BaseException:
                os.close(fd)
                raise
            if is_its:
                return device, fd
            os.close(fd)
    return None


def _backing(fd: int) -> tuple[int, int] | None:
    try:
        found = fcntl.ioctl(fd, _GET_STATUS, bytes(_INFO.size))
    except OSError as error:
        if error.errno == errno.ENXIO:  # it is just being let go
            return None
        raise
    device_number, inode = _INFO.unpack(found)[:2]
    return int(device_number), int(inode)


def _attach(path: str) -> tuple[str, int]:
    """Bind a free loop device to a file, and open it."""
    backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        device, fd = _take_free(backing)
    finally:
        os.close(backing)
    name = os.fsencode(path)[:63]
    try:
        fcntl.ioctl(fd, _SET_STATUS, bytearray(_INFO.pack(*[0] * 8, _AUTOCLEAR, name, b"", b"")))
    except BaseException:
        fcntl.ioctl(fd, _CLR_FD, 0)
        os.close(fd)
        raise
    return device, fd


def _take_free(backing: int) -> tuple[str, int]:
    """Bind a loop device to a file, and open it."""
    for _ in range(_TRIES):
        device = f"/dev/loop{_free_number()}"
        loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(loop, _SET_FD, backing)
        except OSError as error:
            os.close(loop)
            if error.errno != errno.EBUSY:
                raise
        else:
            return device, loop
    raise OSError(errno.EBUSY, "no loop device is free")


def _free_number() -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return int(fcntl.ioctl(control, _GET_FREE))
    finally:
        os.close(control)
