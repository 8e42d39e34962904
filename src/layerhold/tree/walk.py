"""Every directory of a tree, one after the other, each open while it is looked at.

A tree may be deeper than a path can say and than descriptors can be had: names are only used within their directory,
and of a long way down only the last directories are kept open. Links are never followed.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
KEPT_OPEN = 100
LONGEST_PATH = 4095  # bytes (PATH_MAX counts the zero behind them)


class Opened:
    """A directory that is open as `fd`, and may be closed and opened again on a way through a deep tree.

    `info` says how it was on entering.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.info = os.fstat(fd)

    def reopen(self, below: Opened) -> None:
        """Open it again by way of a directory in it. Raises OSError (ESTALE) if that was moved meanwhile."""
        if self.fd < 0:
            self.fd = os.open("..", _DIRECTORY, dir_fd=below.fd)
            now = os.fstat(self.fd)
            if (self.info.st_dev, self.info.st_ino) != (now.st_dev, now.st_ino):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def close(self) -> None:
        """Close it; a second time is no error."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Directory(Opened):
    """One directory of a walk: `path` is below the top, with a slash at its end.

    `fd` is open until the next one is asked for; `entries` (name and `lstat`) say what was in it on entering.
    """

    def __init__(self, fd: int, path: str) -> None:
        super().__init__(fd)
        self.path = path
        with os.scandir(fd) as entries:
            self.entries = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        self._below = sorted((name for name, info in self.entries if stat.S_ISDIR(info.st_mode)), reverse=True)

    def next_below(self) -> Directory | None:
        """Open the next directory in this one; None: there are no more."""
        self.entries = []
        if not self._below:
            return None
        name = self._below.pop()
        return _opened(name, f"{self.path}{name}/", self.fd)


def directories(top: str) -> Iterator[Directory]:
    """Give the directory `top` and all that are below it, each before those in it. Raises OSError."""
    stack = [_opened(top, "", None)]
    try:
        yield stack[-1]
        while stack:
            below = stack[-1].next_below()
            if below is not None:
                stack.append(below)
                if len(stack) > KEPT_OPEN:
                    stack[-1 - KEPT_OPEN].close()
                yield below
                continue
            if len(stack) > 1:
                stack[-2].reopen(stack[-1])
            stack.pop().close()
    finally:
        for directory in stack:
            directory.close()


def _opened(name: str, path: str, at: int | None) -> Directory:
    fd = os.open(name, _DIRECTORY | (os.O_NOFOLLOW if at is not None else 0), dir_fd=at)
    try:
        return Directory(fd, path)
    except BaseException:
        os.close(fd)
        raise
