"""Limits on what directories hold, by the project quotas of xfs and ext4: files have numbers, and numbers have limits.

A directory passes its number on to what is made in it, once it is told to (<linux/fs.h>: FS_XFLAG_PROJINHERIT). Nothing
can be renamed or linked into one that has another number (EXDEV). The limits of a number are the file system's
(<linux/quota.h>, <linux/dqblk_xfs.h>; ext4 understands the calls of xfs); they hold if it is mounted with `prjquota`.
Setting them takes root on the machine.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct

from layerhold.linux.calls import check, function, system_call
from layerhold.values import Value

MOST = 2**32 - 2  # the last number (the one above it stands for none that is valid); 0 is no project

_GET, _SET = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_ATTRIBUTES = struct.Struct("=IIIII8x")  # struct fsxattr: flags, extent size, extents, project, extent size of copies
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT

_OF_PROJECTS = 2  # PRJQUOTA
_GET_QUOTA = 0x5803 << 8 | _OF_PROJECTS  # Q_XGETQUOTA
_SET_LIMITS = 0x5804 << 8 | _OF_PROJECTS  # Q_XSETQLIM
# struct fs_disk_quota: version, flags, which are set, number; hard and soft limit of blocks and of inodes, used of both
_QUOTA = struct.Struct("=bBHI6Q56x")
_VERSION, _FLAGS = 1, 2  # FS_DQUOT_VERSION, FS_PROJ_QUOTA
_LIMITS = 0b1111  # FS_DQ_ISOFT, _IHARD, _BSOFT, _BHARD
_BLOCK = 512  # whatever the blocks of the file system are

_quotactl_fd = system_call(443, ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)  # Linux 5.14
_quotactl = function("quotactl", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p)


class Quota(Value):
    """What a project may have, in bytes and in files, and what it has; 0 is no limit."""

    size: int
    inodes: int
    used: int
    used_inodes: int


def project(fd: int) -> int:
    """Give the number of a directory or file, 0 if it has none. Raises OSError where there are no such numbers."""
    return int(_ATTRIBUTES.unpack(_attributes(fd))[3])


def _attributes(fd: int) -> bytes:
    return fcntl.ioctl(fd, _GET, bytes(_ATTRIBUTES.size))


def start(fd: int, number: int) -> None:
    """Give an empty directory a number, and everything that is made in it from now on."""
    flags, extent, extents, _old, copies = _ATTRIBUTES.unpack(_attributes(fd))
    fcntl.ioctl(fd, _SET, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, number, copies))


def stop_inheriting(fd: int) -> None:
    """Let what is made in a directory from now on have no number."""
    flags, *rest = _ATTRIBUTES.unpack(_attributes(fd))
    if flags & _INHERIT:
        fcntl.ioctl(fd, _SET, _ATTRIBUTES.pack(flags & ~_INHERIT, *rest))


class Device:
    """The file system that a directory is on. `node` is where its device can be made, for kernels before 5.14."""

    def __init__(self, directory: str, node: str) -> None:
        self._directory = directory
        self._node = node

    def quota(self, number: int) -> Quota:
        """Say what a project may have. Raises OSError: ENOSYS, ESRCH where quotas are off; EPERM."""
        answer = bytearray(_QUOTA.size)
        try:
            self._call(_GET_QUOTA, number, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:  # nobody has counted for this number yet
                raise
        *_head, size, _soft, inodes, _soft_inodes, used, used_inodes = _QUOTA.unpack(answer)
        return Quota(size=size * _BLOCK, inodes=inodes, used=used * _BLOCK, used_inodes=used_inodes)

    def limit(self, number: int, *, size: int, inodes: int) -> None:
        """Set what a project may have; 0 is no limit. Raises OSError, as `quota`."""
        blocks = max(size // _BLOCK, 1) if size else 0  # rounded down as Go does, but not to none
        wanted = _QUOTA.pack(_VERSION, _FLAGS, _LIMITS, number, blocks, blocks, inodes, inodes, 0, 0)
        self._call(_SET_LIMITS, number, bytearray(wanted))

    def _call(self, command: int, number: int, content: bytearray) -> None:
        pointer = ctypes.byref(ctypes.c_char.from_buffer(content))
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            check(_quotactl_fd(fd, command, number, pointer), "quotactl_fd", self._directory)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # which is also what xfs says that is mounted without quotas
                raise
            self._make_node(os.fstat(fd).st_dev)
            check(_quotactl(command, os.fsencode(self._node), number, pointer), "quotactl", self._node)
        finally:
            os.close(fd)

    def _make_node(self, number: int) -> None:
        try:
            if os.lstat(self._node).st_rdev == number:
                return
        except FileNotFoundError:
            pass
        aside = f"{self._node}.{os.getpid()}"
        os.mknod(aside, stat.S_IFBLK | 0o600, number)
        os.rename(aside, self._node)
