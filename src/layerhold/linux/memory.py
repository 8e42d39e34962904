"""What the C library does with memory that is given back."""

from __future__ import annotations

import ctypes
from contextlib import suppress

from layerhold.linux.calls import function

# <malloc.h> of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT = 32 << 20  # bytes; more is not allowed


def keep_freed_blocks() -> None:
    """Have this process keep the memory of blocks that it has done with, for those to come.

    A block of 128 KiB or more goes back to the kernel, and the next comes anew from there, each page by a fault: with a
    stream of 1 GiB that took half of the time. It is for a process of our own; a caller's memory is the caller's. With
    another C library than glibc nothing happens.
    """
    with suppress(AttributeError):
        mallopt = function("mallopt", ctypes.c_int, ctypes.c_int)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
