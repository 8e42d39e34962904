"""Places aside: where things are built before they are renamed into place, and renamed to before they are deleted.

    <base>/lock-<n>         held by whoever works in the directory beside it
    <base>/temp-dir-<n>/

This is the newest Go library's own layout (internal/tempdir), so that its sweep and ours clear up after each other: a
directory whose lock can be had was left by a crash. The lock is taken before the directory is made, and unlinked, while
it is held, after the directory has gone.
"""

from __future__ import annotations

import errno
import os

from layerhold.blocks import contextmanager
from layerhold.linux import locks
from layerhold.tree.files import make_dirs, move, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from layerhold.progress import Meter

_LOCK, _DIRECTORY = "lock-", "temp-dir-"
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class TempDir:
    """One directory aside, whose lock is held."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._count = 0

    def place(self, name: str = "addition") -> str:
        """Give a path in it that nothing is at yet: `<count>-<name>`, cut where a file's name must end."""
        path = os.path.join(self.path, os.fsdecode(os.fsencode(f"{self._count}-{name}")[:255]))
        self._count += 1
        return path

    def take(self, path: str) -> None:
        """Move `path` in here, to be deleted later; nothing there is no error."""
        try:
            move(path, self.place(os.path.basename(path)))
        except FileNotFoundError:
            return


class Shredder:
    """What stands for a place aside where there is no room for one: things are deleted at once."""

    def take(self, path: str) -> None:
        """Delete `path`; nothing there is no error."""
        remove_tree(path)


class SeveralBins:
    """Places aside on several file systems: what is thrown away goes to the one below whose `home` it lies."""

    def __init__(self, bins: Mapping[str, TempDir]) -> None:
        self._bins = bins

    def take(self, path: str) -> None:
        """Move `path` aside, to be deleted later; nothing there is no error."""
        for home, temporary in self._bins.items():
            if path.startswith(home + "/"):
                temporary.take(path)
                return
        raise ValueError(f"{path} is in none of {', '.join(self._bins)}")


Bin = TempDir | Shredder | SeveralBins


class Aside:
    """The directories aside that lie in `base`.

    `before_sweep` is called with one that a crash left, to unmount what is mounted there; `remove` removes each.
    """

    def __init__(
        self,
        base: str,
        *,
        before_sweep: Callable[[str], None] | None = None,
        remove: Callable[[str, Meter | None], None] = remove_tree,
    ) -> None:
        self.base = base
        self._before_sweep = before_sweep
        self._remove_tree = remove

    @contextmanager
    def open(self, meter: Meter | None = None) -> Iterator[TempDir]:
        """Make a directory aside; it goes, with all that is in it, at the end of the block.

        The meter counts what is in it then. If its callback ends that, the next sweep removes the rest.
        """
        make_dirs(self.base)
        with self._new_lock() as number:
            path = os.path.join(self.base, _DIRECTORY + number)
            os.mkdir(path, 0o700)
            try:
                yield TempDir(path)
            finally:
                self._remove(number, meter)

    def sweep(self) -> None:
        """Remove the directories that nobody works in any more. Raises OSError, after it has tried all of them."""
        try:
            names = os.listdir(self.base)
        except FileNotFoundError:
            return
        numbers = {name[len(prefix) :] for name in names for prefix in (_LOCK, _DIRECTORY) if name.startswith(prefix)}
        failure = None
        for number in sorted(numbers):
            try:
                self._sweep_one(number)
            except OSError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    @contextmanager
    def _new_lock(self) -> Iterator[str]:
        while True:
            number = str(int.from_bytes(os.urandom(5), "big"))
            try:
                fd = os.open(self._lock_path(number), _OPEN | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            with _locked(fd) as got:
                if got:
                    yield number
                    return

    def _sweep_one(self, number: str) -> None:
        try:
            fd = os.open(self._lock_path(number), _OPEN, 0o600)
        except OSError as error:
            # A link, a directory or a socket of that name is none of ours, and what has no lock may not be touched. On
            # a full disk (the lock went, the directory did not) it waits for the next sweep.
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOSPC, errno.EDQUOT):
                return
            raise
        with _locked(fd) as got:
            if got:
                if self._before_sweep is not None:
                    self._before_sweep(os.path.join(self.base, _DIRECTORY + number))
                self._remove(number)

    def _lock_path(self, number: str) -> str:
        return os.path.join(self.base, _LOCK + number)

    def _remove(self, number: str, meter: Meter | None = None) -> None:
        self._remove_tree(os.path.join(self.base, _DIRECTORY + number), meter)
        os.unlink(self._lock_path(number))


@contextmanager
def _locked(fd: int) -> Iterator[bool]:
    """Try to lock a file for the time of the block, and close it; tell whether it was got, and has its name still.

    (Somebody else's sweep may have found the file between its making and its locking, and have unlinked it.)
    """
    try:
        got = locks.lock(fd, exclusive=True, wait=False)
        try:
            yield got and os.fstat(fd).st_nlink > 0
        finally:
            if got:
                locks.unlock(fd)  # closing alone would not do it while a forked child has the descriptor
    finally:
        os.close(fd)
