"""User namespaces, as something to hold: maps of user and group IDs that mounts can be given."""

from __future__ import annotations

import ctypes
import os
import signal

from layerhold.linux.calls import function

_CLONE_NEWUSER = 0x10000000
_unshare = function("unshare", ctypes.c_int)


def user_namespace(uid_map: str, gid_map: str) -> int:
    """Make a user namespace with these maps (lines of `<inside> <outside> <count>`); give a descriptor of it.

    A namespace is made by a process that enters it: by a child, which waits until it is killed.
    """
    ready, tell = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _wait_inside(tell)
    try:
        os.close(tell)
        number = os.read(ready, 4)
        if number != b"\0\0\0\0":
            code = int.from_bytes(number, "little")
            raise OSError(code, f"unshare: {os.strerror(code)}")
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write(text)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _wait_inside(tell: int) -> None:
    try:
        number = 0 if _unshare(_CLONE_NEWUSER) == 0 else ctypes.get_errno()
        os.write(tell, number.to_bytes(4, "little"))
        signal.pause()
    finally:
        os._exit(1)
