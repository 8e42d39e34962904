"""Open-file-description locks on whole files.

They exclude the classic POSIX locks of the Go programs, and other threads of this process alike, and closing another
descriptor of the file does not drop them (fcntl(2)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

# Not in Python's fcntl before 3.9 on every build; the numbers are the kernel's (include/uapi/asm-generic/fcntl.h).
_SET, _SET_WAIT = 37, 38


def lock(fd: int, *, exclusive: bool, wait: bool) -> bool:
    """Lock the whole file behind `fd`; tell whether it was got, which is always so when `wait` is true."""
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    # struct flock on 64-bit Linux: type, whence, start, length (0: to the end, wherever that is), pid (0 is required).
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
    while True:
        try:
            fcntl.fcntl(fd, _SET_WAIT if wait else _SET, request)
        except InterruptedError:
            continue
        except OSError as error:
            if not wait and error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


def unlock(fd: int) -> None:
    """Give the lock back. Closing does not do it while a forked child still has the descriptor."""
    fcntl.fcntl(fd, _SET, struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
