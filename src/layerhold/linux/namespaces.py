"""User namespaces: as something to hold, for mounts that are given its maps, and as something to be in.

A namespace is made by a process that enters it: by a child, which waits until it is killed, at the latest together with
this process (it has our locks, too, as long as it lives). So nothing has changed here if the maps cannot be set.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import ExitStack, contextmanager, suppress

from layerhold.linux.calls import check, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x20000
_PR_SET_PDEATHSIG = 1
_unshare = function("unshare", ctypes.c_int)
_setns = function("setns", ctypes.c_int, ctypes.c_int)
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong)


def user_namespace(uid_map: str, gid_map: str) -> int:
    """Make a user namespace with these maps (lines of `<inside> <outside> <count>`); give a descriptor of it."""
    with _child_inside(_CLONE_NEWUSER) as child:
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write(text)
        return _open(child, "user")


def become_root(set_maps: Callable[[int], None]) -> None:
    """Go into new namespaces of users and of mounts, and be root there. Only a process with one thread can.

    `set_maps` gets the ID of a process in the namespace, and sets its maps; what it raises passes through.
    """
    here = os.getcwd()
    with ExitStack() as opened:
        with _child_inside(_CLONE_NEWUSER | _CLONE_NEWNS) as child:
            set_maps(child)
            places = []
            for name, kind in (("user", _CLONE_NEWUSER), ("mnt", _CLONE_NEWNS)):
                places.append((_open(child, name), kind))
                opened.callback(os.close, places[-1][0])
        for fd, kind in places:
            check(_setns(fd, kind), "setns")
    with suppress(PermissionError):  # where only one group is mapped, nobody may drop others
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.chdir(here)  # entering mounts leads to their root


@contextmanager
def _child_inside(kinds: int) -> Iterator[int]:
    """Give the ID of a process that is in new namespaces until the block ends."""
    ready, tell = os.pipe2(os.O_CLOEXEC)
    here = os.getpid()
    try:
        child = os.fork()
    except OSError:
        os.close(ready)
        os.close(tell)
        raise
    if child == 0:
        _wait_inside(kinds, tell, here)
    try:
        os.close(tell)
        number = os.read(ready, 4)
        if number != b"\0\0\0\0":
            code = int.from_bytes(number, "little")
            raise OSError(code, f"unshare: {os.strerror(code)}")
        yield child
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _wait_inside(kinds: int, tell: int, parent: int) -> None:
    try:
        number = 0 if _unshare(kinds) == 0 else ctypes.get_errno()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # afterwards, since a change of rights clears it
        os.write(tell, number.to_bytes(4, "little"))
        while os.getppid() == parent:
            signal.pause()
    finally:
        os._exit(1)


def _open(process: int, kind: str) -> int:
    return os.open(f"/proc/{process}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
