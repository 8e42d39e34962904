"""Subvolumes and quota groups of btrfs: its ioctls (<linux/btrfs.h>), each on a directory that is open.

A subvolume looks like a directory, whose inode has the number 256. Making one takes the right to write where it goes, a
snapshot of one also its ownership; both work in a user namespace. Destroying one takes root, or the mount option
`user_subvol_rm_allowed`. What looks into the file system's own trees (`quotas_are_on`, `is_known`) takes root on the
machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from layerhold.values import Value

TOP = 256  # BTRFS_FIRST_FREE_OBJECTID: the inode number of a subvolume's top, and the least number of a subvolume

_WRITE, _READ = 1, 2
_PAGE = 4096


def _number(direction: int, code: int, size: int) -> int:
    """Give the number of an ioctl, as <asm-generic/ioctl.h> makes it."""
    return direction << 30 | size << 16 | 0x94 << 8 | code


_SNAP_DESTROY = _number(_WRITE, 15, _PAGE)
_TREE_SEARCH = _number(_READ | _WRITE, 17, _PAGE)
_INO_LOOKUP = _number(_READ | _WRITE, 18, _PAGE)
_SNAP_CREATE_V2 = _number(_WRITE, 23, _PAGE)
_SUBVOL_CREATE_V2 = _number(_WRITE, 24, _PAGE)
_SUBVOL_GETFLAGS = _number(_READ, 25, 8)
_SUBVOL_SETFLAGS = _number(_WRITE, 26, 8)
_FS_INFO = _number(_READ, 31, 1024)
_QUOTA_CTL = _number(_READ | _WRITE, 40, 16)
_QGROUP_CREATE = _number(_WRITE, 42, 16)
_QGROUP_LIMIT = _number(_READ, 43, 48)
_QUOTA_RESCAN_WAIT = _number(0, 46, 0)
_GET_SUBVOL_ROOTREF = _number(_READ | _WRITE, 61, _PAGE)
_INO_LOOKUP_USER = _number(_READ | _WRITE, 62, _PAGE)

_VOL_ARGS = struct.Struct("=q4088s")  # struct btrfs_ioctl_vol_args
_VOL_ARGS_V2 = struct.Struct("=qQQ4Q4040s")
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_QUOTA_ARGS = struct.Struct("=QQ")  # of QUOTA_CTL and QGROUP_CREATE
_LIMIT = struct.Struct("=Q5Q")  # struct btrfs_ioctl_qgroup_limit_args
_ROOT_REF = struct.Struct("=QQ")
_LOOKUP_USER = struct.Struct("=QQ256s3824s")

_READ_ONLY = 1 << 1  # BTRFS_SUBVOL_RDONLY
_QUOTA_ENABLE = 1
_LIMIT_REFERENCED = 1  # BTRFS_QGROUP_LIMIT_MAX_RFER
_ROOT_TREE, _QUOTA_TREE = 1, 8
_ROOT_ITEM, _QGROUP_STATUS = 132, 240
_MOST = 2**64 - 1


class Nested(Value):
    """A subvolume in another one: its number, and its path below the other's top."""

    number: int
    path: bytes


def is_btrfs(fd: int) -> bool:
    """Tell whether a file is on btrfs."""
    try:
        fcntl.ioctl(fd, _FS_INFO, bytearray(1024))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


def create(at: int, name: bytes) -> None:
    """Make an empty subvolume in the directory `at`."""
    fcntl.ioctl(at, _SUBVOL_CREATE_V2, bytearray(_VOL_ARGS_V2.pack(0, 0, 0, 0, 0, 0, 0, name)))


def snapshot(source: int, at: int, name: bytes) -> None:
    """Make a subvolume in `at` that has all that the subvolume `source` has, but for the subvolumes in that one."""
    fcntl.ioctl(at, _SNAP_CREATE_V2, bytearray(_VOL_ARGS_V2.pack(source, 0, 0, 0, 0, 0, 0, name)))


def destroy(at: int, name: bytes) -> None:
    """Remove a subvolume from the directory `at`, whatever is in it but for other subvolumes (ENOTEMPTY)."""
    fcntl.ioctl(at, _SNAP_DESTROY, bytearray(_VOL_ARGS.pack(0, name)))


def allow_writing(fd: int) -> None:
    """Let a subvolume be written to again that was made read-only."""
    (flags,) = struct.unpack("=Q", fcntl.ioctl(fd, _SUBVOL_GETFLAGS, bytes(8)))
    if flags & _READ_ONLY:
        fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", flags & ~_READ_ONLY))


def number(fd: int) -> int:
    """Give the number of the subvolume that `fd` is in."""
    request = bytearray(_PAGE)
    struct.pack_into("=QQ", request, 0, 0, TOP)
    fcntl.ioctl(fd, _INO_LOOKUP, request)
    return int.from_bytes(request[:8], "little" if struct.pack("=H", 1)[0] else "big")


def nested(fd: int) -> list[Nested]:
    """List the subvolumes right in the one whose top is `fd`, which must be open for reading."""
    found, least = [], 0
    while True:
        request = bytearray(_PAGE)
        struct.pack_into("=Q", request, 0, least)
        more = False
        try:
            fcntl.ioctl(fd, _GET_SUBVOL_ROOTREF, request)
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise
            more = True
        for index in range(request[8 + 255 * 16]):
            child, directory = _ROOT_REF.unpack_from(request, 8 + 16 * index)
            found.append(Nested(number=child, path=_path(fd, child, directory)))
            least = child + 1
        if not more:
            return found


def _path(fd: int, child: int, directory: int) -> bytes:
    """Give the path of a subvolume by its number and that of the directory it is in."""
    request = bytearray(_LOOKUP_USER.pack(directory, child, b"", b""))
    fcntl.ioctl(fd, _INO_LOOKUP_USER, request)
    _directory, _child, name, above = _LOOKUP_USER.unpack(request)
    return bytes(above.partition(b"\0")[0] + name.partition(b"\0")[0])  # `above` ends with a slash, if it is not empty


def quotas_are_on(fd: int) -> bool:
    """Tell whether the file system counts what each subvolume holds."""
    return _has_item(fd, _QUOTA_TREE, 0, _QGROUP_STATUS)


def is_known(fd: int, number: int) -> bool:
    """Tell whether the file system has a subvolume of this number, or is not done with removing it."""
    return _has_item(fd, _ROOT_TREE, number, _ROOT_ITEM)


def _has_item(fd: int, tree: int, owner: int, kind: int) -> bool:
    request = bytearray(_PAGE)
    _SEARCH_KEY.pack_into(request, 0, tree, owner, owner, 0, _MOST, 0, _MOST, kind, kind, 1, 0, 0, 0, 0, 0)
    try:
        fcntl.ioctl(fd, _TREE_SEARCH, request)
    except FileNotFoundError:  # there is no such tree
        return False
    return bool(_SEARCH_KEY.unpack_from(request)[9])


def turn_quotas_on(fd: int) -> None:
    """Have the file system count what each subvolume holds; it starts with what is there, in the background."""
    fcntl.ioctl(fd, _QUOTA_CTL, bytearray(_QUOTA_ARGS.pack(_QUOTA_ENABLE, 0)))


def wait_for_counts(fd: int) -> None:
    """Wait until all that is there has been counted."""
    fcntl.ioctl(fd, _QUOTA_RESCAN_WAIT)


def limit(fd: int, size: int) -> None:
    """Let the subvolume that `fd` is in refer to `size` bytes at most, shared ones too."""
    fcntl.ioctl(fd, _QGROUP_LIMIT, bytearray(_LIMIT.pack(0, _LIMIT_REFERENCED, size, 0, 0, 0)))


def drop_count(fd: int, number: int) -> None:
    """Remove the quota group of a subvolume that is gone. Raises OSError: EBUSY, it is not gone yet; ENOENT."""
    fcntl.ioctl(fd, _QGROUP_CREATE, _QUOTA_ARGS.pack(0, number))


def is_subvolume(info: os.stat_result) -> bool:
    """Tell whether a directory on btrfs is the top of a subvolume."""
    return info.st_ino == TOP
