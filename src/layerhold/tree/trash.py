"""Places aside: where things are built before they are renamed into place, and renamed to before they are deleted.

    <base>/lock-<n>         held by whoever works in the directory beside it
    <base>/temp-dir-<n>/

This is the newest Go library's own layout (internal/tempdir), so that its sweep and ours clear up after each other: a
directory whose lock can be had was left by a crash. The lock is taken before the directory is made, and unlinked, while
it is held, after the directory has gone.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from layerhold.linux import locks
from layerhold.tree.files import make_dirs, move, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOCK, _DIRECTORY = "lock-", "temp-dir-"


class TempDir:
    """One directory aside, whose lock is held."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._count = 0

    def place(self, name: str = "addition") -> str:
        """Give a path in it that nothing is at yet: `<count>-<name>`."""
        path = os.path.join(self.path, f"{self._count}-{name}")
        self._count += 1
        return path

    def take(self, path: str) -> None:
        """Move `path` in here, to be deleted later; nothing there is no error."""
        try:
            move(path, self.place(os.path.basename(path)))
        except FileNotFoundError:
            return


class Aside:
    """The directories aside that lie in `base`. `before_sweep` is called with one that a crash left, to unmount there."""

    def __init__(self, base: str, *, before_sweep: Callable[[str], None] | None = None) -> None:
        self.base = base
        self._before_sweep = before_sweep

    @contextmanager
    def open(self) -> Iterator[TempDir]:
        """Make a directory aside; it goes, with all that is in it, at the end of the block."""
        make_dirs(self.base)
        number, fd = self._new_lock()
        try:
            path = os.path.join(self.base, _DIRECTORY + number)
            os.mkdir(path, 0o700)
            try:
                yield TempDir(path)
            finally:
                self._remove(number)
        finally:
            locks.unlock(fd)
            os.close(fd)

    def sweep(self) -> None:
        """Remove the directories that nobody works in any more."""
        try:
            names = os.listdir(self.base)
        except FileNotFoundError:
            return
        numbers = {name[len(prefix) :] for name in names for prefix in (_LOCK, _DIRECTORY) if name.startswith(prefix)}
        for number in sorted(numbers):
            self._sweep_one(number)

    def _new_lock(self) -> tuple[str, int]:
        while True:
            number = str(int.from_bytes(os.urandom(5), "big"))
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            try:
                fd = os.open(os.path.join(self.base, _LOCK + number), flags, 0o600)
            except FileExistsError:
                continue
            # A sweep may have found the file between the two calls, and have unlinked it: then another one is made.
            if locks.lock(fd, exclusive=True, wait=False) and os.fstat(fd).st_nlink:
                return number, fd
            os.close(fd)

    def _sweep_one(self, number: str) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(os.path.join(self.base, _LOCK + number), flags, 0o600)
        except OSError:
            # A link or a directory of that name is none of ours; without the lock nothing may be touched.
            return
        try:
            if locks.lock(fd, exclusive=True, wait=False) and os.fstat(fd).st_nlink:
                if self._before_sweep is not None:
                    self._before_sweep(os.path.join(self.base, _DIRECTORY + number))
                self._remove(number)
        finally:
            os.close(fd)

    def _remove(self, number: str) -> None:
        remove_tree(os.path.join(self.base, _DIRECTORY + number))
        os.unlink(os.path.join(self.base, _LOCK + number))
