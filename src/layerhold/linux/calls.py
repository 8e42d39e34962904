"""The C library, loaded on first use, and how a failed call becomes an OSError.

`ctypes` costs 1.3 ms at import, so only modules that make such a call import this one.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)

SYS_OPENAT2 = 437  # glibc 2.36 has no wrapper for it; above 424 the numbers are the same on every architecture


def function(name: str, *argtypes: object) -> Callable[..., int]:
    """Give the C function `name` with its argument types set once, which halves the cost of a call."""
    found = getattr(libc, name)
    found.argtypes = argtypes
    found.restype = ctypes.c_int
    return found  # type: ignore[no-any-return]


def system_call(number: int, *argtypes: object) -> Callable[..., int]:
    """Give a system call by its number, the same on all architectures; C libraries before 2022 have no name for it."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *argtypes, use_errno=True)  # type: ignore[arg-type]
    call = prototype(("syscall", libc))
    return lambda *arguments: int(call(number, *arguments))


def check(result: int, call: str, *about: str | bytes | None) -> int:
    """Return `result`, or raise the OSError of the last call, with its name and the paths it was about."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    names = [os.fsdecode(name) for name in about if name is not None]
    raise OSError(number, f"{call}: {os.strerror(number)}", *names[:1], *((None, names[1]) if len(names) > 1 else ()))
