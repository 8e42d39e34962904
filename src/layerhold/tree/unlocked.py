"""Directories that their owner may not enter or fill, opened for the time of the work.

An ordinary user cannot add a file to his own directory of mode 0555. So it gets the owner's rights for a while, and its
true mode is noted here until the work is done. A crash in between leaves the owner with more rights than the mode says.

Archives decide how many such directories there are, so they are kept as one string of bytes, path after path, and there
is a limit.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Far above any real tree (a package store of 100,000 read-only directories needs 9 MB), far below a machine's memory.
_LIMIT = 24 << 20


class Unlocked:
    """Paths of directories and the modes that they are to have in the end."""

    def __init__(self) -> None:
        self._notes = bytearray()

    def add(self, path: bytes, mode: int) -> None:
        """Note that the directory `path` is to have `mode`; a later note goes before an earlier one."""
        if len(self._notes) > _LIMIT:
            raise OSError(errno.ENOMEM, "too many directories without their owner's rights")
        self._notes += b"%o/%b\0" % (mode, path)

    def __bool__(self) -> bool:
        return bool(self._notes)

    def forget(self, path: bytes) -> None:
        """Drop the notes on `path` and all that is below it: it was removed."""
        below = path + b"/"
        kept = [(p, mode) for p, mode in self._all() if p != path and not p.startswith(below)]
        self._notes.clear()
        for p, mode in kept:
            self.add(p, mode)

    def restore(self, chmod: Callable[[bytes, int], None]) -> None:
        """Give each directory its true mode, the deepest first."""
        for path, mode in sorted(dict(self._all()).items(), reverse=True):
            chmod(path, mode)
        self._notes.clear()

    def _all(self) -> Iterator[tuple[bytes, int]]:
        for note in bytes(self._notes).split(b"\0")[:-1]:
            mode, _, path = note.partition(b"/")
            yield path, int(mode, 8)


def lacks_rights(info: os.stat_result, wanted: int = stat.S_IRWXU) -> bool:
    """Tell whether this user owns the directory and yet lacks one of the rights in `wanted`."""
    return info.st_mode & wanted != wanted and info.st_uid == os.geteuid()
