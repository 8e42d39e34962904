"""Block devices with ext4 or xfs on them: which of the two, its UUID, making it larger; and giving blocks back."""

from __future__ import annotations

import fcntl
import os
import struct

from layerhold.values import Value

_DISCARD, _SIZE = 0x1277, 0x80081272
_EXT4_RESIZE = 0x40086610
_XFS_GEOMETRY, _XFS_GROW = 0x80705864, 0x4010586E
_XFS_GEOMETRY_SIZE = 112
_EXT4_AT = 1024


class FileSystem(Value):
    """What is on a device: "ext4" or "xfs"."""

    kind: str
    uuid: str


def probe(path: str) -> FileSystem | None:
    """Say what file system a device has; None for any but those two."""
    with open(path, "rb") as file:
        start = file.read(4096)
    if start[:4] == b"XFSB":
        return FileSystem(kind="xfs", uuid=_written(start[32:48]))
    if start[_EXT4_AT + 56 : _EXT4_AT + 58] == b"\x53\xef":
        return FileSystem(kind="ext4", uuid=_written(start[_EXT4_AT + 104 : _EXT4_AT + 120]))
    return None


def _written(uuid: bytes) -> str:
    text = uuid.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def size(path: str) -> int:
    """Give the size of a device, in bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        (found,) = struct.unpack("=Q", fcntl.ioctl(fd, _SIZE, bytes(8)))
    finally:
        os.close(fd)
    return int(found)


def discard(path: str) -> None:
    """Give back all blocks of a device. Raises OSError where it cannot."""
    length = size(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _DISCARD, struct.pack("=QQ", 0, length))
    finally:
        os.close(fd)


def grow(top: str, kind: str, length: int) -> None:
    """Let the file system that is mounted at `top` have all `length` bytes of its device."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if kind == "xfs":
            geometry = fcntl.ioctl(fd, _XFS_GEOMETRY, bytes(_XFS_GEOMETRY_SIZE))
            block, *_, most_inodes = struct.unpack_from("=8I", geometry)
            fcntl.ioctl(fd, _XFS_GROW, struct.pack("=QI4x", length // block, most_inodes))
        else:
            block = os.fstatvfs(fd).f_frsize
            fcntl.ioctl(fd, _EXT4_RESIZE, struct.pack("=Q", length // block))
    finally:
        os.close(fd)
