"""The way to the last name of a path that cannot lead out of a directory, and the directories on it that stay open.

Paths are `bytes`, relative to the directory, cleaned (no leading "/", no "." or empty component). A way is walked as a
`chroot` would walk it: links inside are followed, absolute ones and ".." stop at the root.

Entries of a tar are mostly in the same directory as the one before, or in the one above, so the last directory stays
open, and those on the way to it as far as they were asked for. Below the first of these all are directories by their
own names, not by links, so none is open twice. Only removing a directory or a link can change what a path means; then
all are dropped (`leave`).

With `filling=True` directories keep their times though names are added to them: they are read on entering and set again
on leaving. That gives each directory of a tar the times of its header, in whatever order the entries come, without a
list of all directories in memory. An ordinary user gets the rights on his directories that he needs, until `settle`.
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.blocks import contextmanager
from layerhold.tree.resolve import has_openat2, open_in_root, walk
from layerhold.tree.unlocked import Unlocked, lacks_rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_MOST_ABOVE = 16  # directories that stay open above the last one
_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_NO_NAMES = frozenset((b"", b".", b".."))


class Way:
    """The way from the directory `path`, as a context manager; `filling`: it is being filled from an archive."""

    def __init__(self, path: str, *, filling: bool = False) -> None:
        self._filling = filling
        self._ordinary = os.geteuid() != 0
        self._unlocked = Unlocked()
        self._root = os.open(path, _DIRECTORY)
        self._resolve = open_in_root if has_openat2(self._root) else walk
        # The directory that is open: its path (None: none), its descriptor, and the times to set on leaving it.
        self._at: bytes | None = None
        self._fd = -1
        self._times: tuple[int, int] | None = None
        self._born: tuple[int, int] | None = None  # the owner of what is created in it
        # The same four of those above it, the nearest last.
        self._above: list[tuple[bytes, int, tuple[int, int] | None, tuple[int, int] | None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, failure: BaseException | None, _trace: object) -> None:
        try:
            self.settle()
        except OSError as error:
            if failure is None:
                raise
            failure.add_note(f"then directories did not get their modes and times back: {error}")
        finally:
            os.close(self._root)

    def settle(self) -> None:
        """Leave the open directory and give all directories the times and modes that they are to have."""
        self.leave()
        self._unlocked.restore(self._chmod_if_there)

    @contextmanager
    def parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Open the directory that `path` is in, and give its descriptor (until the next call) and the last name."""
        yield self.at(path)

    def at(self, path: bytes) -> tuple[int, bytes]:
        """Give what `parent` gives; for calls that follow at once."""
        directory, _, name = path.rpartition(b"/")
        if directory != self._at:
            self._enter(directory)
        if name in _NO_NAMES:
            raise OSError(errno.EINVAL, "no name of a file", os.fsdecode(path))
        return self._fd, name

    def _inside(self, directory: bytes) -> int:
        """Give the descriptor of `directory`, links followed, until the next call."""
        if directory != self._at:
            self._enter(directory)
        return self._fd

    def leave(self) -> None:
        """Close the directories that are open, and set their times again."""
        while self._at is not None:
            self._leave_last()

    def _leave_last(self) -> None:
        fd, times = self._fd, self._times
        if self._above:
            self._at, self._fd, self._times, self._born = self._above.pop()
        else:
            self._at, self._fd, self._times, self._born = None, -1, None, None
        try:
            if times is not None:
                os.utime(by_number(fd), ns=times)
        finally:
            os.close(fd)

    def _enter(self, directory: bytes) -> None:
        above, _, name = directory.rpartition(b"/")
        while self._at is not None and self._at != above:
            self._leave_last()
            if self._at == directory:
                return
        fd = self._step(name)
        if fd is None:
            self.leave()
            fd = self._open_directory(directory)
        times = None
        try:
            if self._filling:
                info = os.fstat(fd)
                times = (info.st_atime_ns, info.st_mtime_ns)
                if self._ordinary and lacks_rights(info):
                    self._unlock(fd, info)
            elif self._ordinary:
                info = os.fstat(fd)
                if lacks_rights(info, stat.S_IXUSR):
                    self._unlock(fd, info)
        except BaseException:
            os.close(fd)
            raise
        if self._at is not None:
            self._above.append((self._at, self._fd, self._times, self._born))
        self._at, self._fd, self._times, self._born = directory, fd, times, None

    def _step(self, name: bytes) -> int | None:
        """Open the directory `name` of the one that is open; None if that is not as simple as that."""
        if self._at is None or name in _NO_NAMES or 0 in name or len(self._above) >= _MOST_ABOVE:
            return None
        try:
            return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._fd)
        except OSError:  # a link, or nothing: how to go on is known to who goes all the way
            return None

    def _open_directory(self, path: bytes) -> int:
        if 0 in path:
            raise OSError(errno.EINVAL, "NUL in a name", os.fsdecode(path))
        try:
            return self._resolve(self._root, path or b".")
        except PermissionError:
            if not self._ordinary:
                raise
        return walk(self._root, path, self._unlock_if_needed)

    def _unlock_if_needed(self, fd: int) -> None:
        info = os.fstat(fd)
        if lacks_rights(info):
            self._unlock(fd, info)

    def _unlock(self, fd: int, info: os.stat_result) -> None:
        """Give this user his rights on the directory `fd`, until `settle`."""
        self._unlocked.add(self._true_path(fd), stat.S_IMODE(info.st_mode))
        os.chmod(by_number(fd), stat.S_IMODE(info.st_mode) | 0o700)

    def _true_path(self, fd: int) -> bytes:
        """Say where the directory `fd` is, without links."""
        root, here = os.readlink(by_number(self._root)), os.readlink(by_number(fd))
        return here.removeprefix(root).lstrip(b"/")

    def _chmod_if_there(self, path: bytes, mode: int) -> None:
        try:
            fd = self._open_directory(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            os.chmod(by_number(fd), mode)
        finally:
            os.close(fd)

    def _reopen_directory(self, name: bytes, at: int) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            return os.open(name, flags, dir_fd=at)
        except PermissionError:
            if not self._ordinary:
                raise
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
        try:
            self._unlock_if_needed(fd)
        finally:
            os.close(fd)
        return os.open(name, flags, dir_fd=at)


def by_number(fd: int) -> bytes:
    """Give a path of what is open as `fd`, for calls that take only paths."""
    return b"/proc/self/fd/%d" % fd
