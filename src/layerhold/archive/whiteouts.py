"""How an archive, and how a tree, shows that a name of a lower layer is gone.

In an archive (the AUFS spelling, which OCI layers have kept): an entry `d/.wh.x` hides `d/x`, and `d/.wh..wh..opq`
hides all that lower layers have in `d`. Both are about *lower* layers only: what the same archive brings stays.

In a tree: with ERASE the name is simply not there, since the tree is whole. With OVERLAY_MARKS the tree holds one
layer, and a character device 0/0 stands for a hidden name, an extended attribute for a hidden directory content.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from layerhold.values import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from layerhold.tree.root import Root

ERASE = "erase"
NO_DELETIONS = "no-deletions"  # names that look like whiteouts are names like others
OVERLAY_MARKS = "overlay-marks"

PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"
META_PREFIX = b".wh..wh."


def join(directory: bytes, name: bytes) -> bytes:
    """Join a directory (b"": the root) and a name."""
    return directory + b"/" + name if directory else name


def is_mark(path: bytes) -> bool:
    """Tell whether a name in an archive is a whiteout, or makes its directory opaque."""
    return path.find(PREFIX) >= 0 and path.startswith(PREFIX, path.rfind(b"/") + 1)


def whiteout_of(path: bytes) -> bytes:
    """Give the name in an archive that hides `path`."""
    directory, _, name = path.rpartition(b"/")
    return join(directory, PREFIX + name)


def opaque_of(directory: bytes) -> bytes:
    """Give the name in an archive that hides what lower layers have in `directory`."""
    return join(directory, OPAQUE_NAME)


def is_hidden(info: os.stat_result) -> bool:
    """Tell whether a file in an overlay layer stands for a name that is gone."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def opaque_key(xattr_prefix: str) -> bytes:
    """Name the attribute that makes a directory of an overlay layer opaque (its value is b"y")."""
    return os.fsencode(xattr_prefix) + b"opaque"


class Deletions(Protocol):
    """How whiteouts of an archive are brought into a tree. `brought` says whether this archive has unpacked a path."""

    def hide(self, root: Root, path: bytes, brought: Callable[[bytes], bool]) -> bool:
        """Hide `path`; tell whether there is now a mark that is to get the entry's owner. May raise FileExistsError."""

    def hide_below(self, root: Root, directory: bytes, brought: Callable[[bytes], bool]) -> None:
        """Hide what lower layers have in `directory`."""

    def replaced(self, root: Root, directory: bytes, old: os.stat_result) -> None:
        """Take note that the new `directory` stands where `old` was, which may have been a mark."""


class Erase:
    """The tree is whole: what is hidden is removed."""

    def hide(self, root: Root, path: bytes, brought: Callable[[bytes], bool]) -> bool:
        """Remove `path`; missing is fine."""
        with suppress(FileNotFoundError, NotADirectoryError):
            root.remove(path, keep=brought)
        return False

    def hide_below(self, root: Root, directory: bytes, brought: Callable[[bytes], bool]) -> None:
        """Remove what is in `directory`."""
        root.prune(directory, keep=brought)

    def replaced(self, root: Root, directory: bytes, old: os.stat_result) -> None:
        """Nothing is hidden by marks here."""


class OverlayMarks:
    """The tree is one layer: marks are left for the kernel. `prior` says that it had files before this archive."""

    def __init__(self, xattr_prefix: str, *, prior: bool) -> None:
        self._opaque = opaque_key(xattr_prefix)
        self._prior = prior

    def hide(self, root: Root, path: bytes, brought: Callable[[bytes], bool]) -> bool:
        """Put the mark in the place of `path`."""
        try:
            root.mknod(path, stat.S_IFCHR)
        except FileExistsError:
            if is_hidden(root.lstat(path)):
                return True
            if brought(path) or not root.remove(path, keep=brought):
                raise
            root.mknod(path, stat.S_IFCHR)
        except NotADirectoryError:
            if not _under_mark(root, path):
                raise
            return False
        return True

    def hide_below(self, root: Root, directory: bytes, brought: Callable[[bytes], bool]) -> None:
        """Set the attribute, and remove what this tree itself had in `directory`."""
        try:
            if self._prior:
                root.prune(directory, keep=brought)
            root.set_directory_xattr(directory, self._opaque, b"y")
        except NotADirectoryError:
            if not _under_mark(root, join(directory, OPAQUE_NAME)):
                raise

    def replaced(self, root: Root, directory: bytes, old: os.stat_result) -> None:
        """Keep hidden what a mark hid: a directory in its place starts empty."""
        if is_hidden(old):
            root.set_xattr(directory, self._opaque, b"y")


def _under_mark(root: Root, path: bytes) -> bool:
    """Tell whether a directory on the way to `path` is hidden itself: then so is all below it."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        try:
            if is_hidden(root.lstat(b"/".join(parts[:count]))):
                return True
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return False
    return False
