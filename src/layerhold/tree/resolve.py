"""Finding a directory below a root as a process would that had done `chroot` there.

The kernel does it with `openat2` and RESOLVE_IN_ROOT. Where the kernel lacks the call, and only there, `walk` goes name
by name with a descriptor for each directory, so that ".." needs no trust in what is on the disk. `walk` is also how an
ordinary user comes through directories that he must first give himself the rights to.
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.linux.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, Opener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_LINKS = 40  # as the kernel
_MAX_RACES = 100
_MOST_OPEN = 200  # directories on the way that stay open; a process may have 1024 files

_open_in_root = Opener(os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def has_openat2(root: int) -> bool:
    """Tell whether there is `openat2`: Linux 5.6 has it, old filters for containers forbid it."""
    try:
        os.close(_open_in_root(root, b"."))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        if error.errno != errno.EACCES:
            raise
    return True


def open_in_root(root: int, path: bytes) -> int:
    """Open the directory `path` as if `root` were "/", and return an O_PATH descriptor."""
    for _ in range(_MAX_RACES):
        try:
            return _open_in_root(root, path)
        except BlockingIOError:  # EAGAIN: a rename elsewhere got in the way of a ".."
            continue
    return _open_in_root(root, path)


def walk(root: int, path: bytes, enter: Callable[[int], None] | None = None) -> int:
    """Do what `open_in_root` does, one name at a time; `enter` is called on each directory on the way."""
    way = [os.dup(root)]
    todo, links, forgotten = path.split(b"/")[::-1], 0, False
    try:
        while True:
            if enter is not None:
                enter(way[-1])
            while todo and todo[-1] in (b"", b"."):
                todo.pop()
            if not todo:
                return os.dup(way[-1])
            name = todo.pop()
            if name == b"..":
                _up(way, forgotten=forgotten)
                continue
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=way[-1])
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                forgotten = _down(way, fd, path) or forgotten
                continue
            target = _target(fd)
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
            if target.startswith(b"/"):
                while len(way) > 1:
                    _up(way)
                forgotten = False
            todo.extend(target.split(b"/")[::-1])
    finally:
        for fd in way:
            os.close(fd)


def _down(way: list[int], fd: int, path: bytes) -> bool:
    """Go into the directory `fd`; of a way that is long the upper half is closed, which is told.

    Only a link that leads up could ask for those again.
    """
    way.append(fd)
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(path))
    if len(way) <= _MOST_OPEN:
        return False
    upper = way[1 : len(way) // 2]
    del way[1 : len(way) // 2]
    for above in upper:
        os.close(above)
    return True


def _up(way: list[int], *, forgotten: bool = False) -> None:
    if forgotten and len(way) == 2:
        raise OSError(errno.ELOOP, "too deep to find the way back up")
    if len(way) > 1:
        os.close(way.pop())


def _target(link: int) -> bytes:
    try:
        return os.readlink(b"", dir_fd=link)
    finally:
        os.close(link)
