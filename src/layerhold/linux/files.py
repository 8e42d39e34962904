"""Calls on files that Python does not offer: confined opening, cloning, syncing, renaming on a condition."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from layerhold.linux.calls import SYS_OPENAT2, check, function, libc

# <linux/openat2.h>
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# <linux/fs.h>
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
_WAIT_WRITE_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER
_FICLONE = 0x40049409
_FIDEDUPERANGE = 0xC0189436
_DEDUPE = struct.Struct("=QQHHI qQQiI")  # struct file_dedupe_range with one file_dedupe_range_info

_syncfs = function("syncfs", ctypes.c_int)
_sync_file_range = function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_renameat2 = function(
    "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)  # glibc 2.28, musl 1.2.5


class _How(ctypes.Structure):
    """`struct open_how`."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


# A prototype of its own: `libc.syscall` is one object, whose argument types other modules may set differently.
_syscall_openat2 = ctypes.CFUNCTYPE(
    ctypes.c_long,
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_How),
    ctypes.c_size_t,
    use_errno=True,
)(("syscall", libc))


class Opener:
    """`openat2` with the same flags each time; the structure is only read, so threads may share one opener."""

    def __init__(self, flags: int, *, mode: int = 0, resolve: int = 0) -> None:
        self._how = _How(flags | os.O_CLOEXEC, mode, resolve)
        self._pointer = ctypes.pointer(self._how)
        self._size = ctypes.sizeof(_How)

    def __call__(self, dir_fd: int, path: bytes) -> int:
        """Open `path` below `dir_fd` and return the descriptor. Raises OSError; `path` holds no NUL."""
        fd = _syscall_openat2(SYS_OPENAT2, dir_fd, path, self._pointer, self._size)
        return fd if fd >= 0 else check(fd, "openat2", path)


def openat2(dir_fd: int, path: bytes, flags: int, mode: int = 0, *, resolve: int = 0) -> int:
    """Open `path` below `dir_fd` as `resolve` allows, and return the descriptor."""
    return Opener(flags, mode=mode, resolve=resolve)(dir_fd, path)


def syncfs(fd: int) -> None:
    """Write out all that is not yet on the disk of the file system that `fd` is on."""
    check(_syncfs(fd), "syncfs")


def sync_file_range(fd: int) -> None:
    """Write out the content of a file, and wait until it is done; what the file system says of it is not written."""
    check(_sync_file_range(fd, 0, 0, _WAIT_WRITE_WAIT), "sync_file_range")


def ficlone(dst_fd: int, src_fd: int) -> None:
    """Make the file `dst_fd` share all blocks of `src_fd`. Raises OSError (EOPNOTSUPP, EXDEV) where that cannot be."""
    fcntl.ioctl(dst_fd, _FICLONE, src_fd)


def dedupe(src_fd: int, dst_fd: int, offset: int, size: int) -> int:
    """Let `dst_fd` share blocks of `src_fd` there, if both hold the same; return how many bytes do, 0 if they differ.

    That may be fewer than `size`. Raises OSError: EOPNOTSUPP where the file system cannot, EINVAL for what it refuses.
    """
    request = bytearray(_DEDUPE.pack(offset, size, 1, 0, 0, dst_fd, offset, 0, 0, 0))
    fcntl.ioctl(src_fd, _FIDEDUPERANGE, request, True)
    *_, shared, status, _reserved = _DEDUPE.unpack(request)
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return int(shared) if status == 0 else 0


def renameat2(
    src: str | bytes, dst: str | bytes, flags: int, *, src_dir_fd: int = -100, dst_dir_fd: int = -100
) -> None:
    """Rename `src` to `dst`; RENAME_NOREPLACE fails if `dst` is there, RENAME_EXCHANGE swaps the two."""
    check(_renameat2(src_dir_fd, os.fsencode(src), dst_dir_fd, os.fsencode(dst), flags), "renameat2", src, dst)
