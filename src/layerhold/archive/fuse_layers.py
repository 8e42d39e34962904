"""Layers as fuse-overlayfs reads and writes them, to be read without it.

A name is hidden by a file `.wh.<name>`, as in an archive, or by a 0/0 device in its place; a directory hides what is
below it by a file `.wh..wh..opq`, or by one of several attributes. (Go's library, which has a mount program, unpacks
the files; fuse-overlayfs makes the devices where it may.) Attributes of fuse-overlayfs's own are no part of a layer,
and where the top of a layer has an override (override_stat.py), all its files may have one.
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.archive import override_stat
from layerhold.archive.whiteouts import MarksOfAufs, is_hidden
from layerhold.tree.root import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque")
_OWN = (b"user.overlay.", b"user.fuseoverlayfs.")
_LONGEST_LINK = 4096


class FuseRoot(Root):
    """The directory of one such layer, for reading."""

    def __init__(self, path: str) -> None:
        self._overridden = False
        super().__init__(path)
        try:
            self._overridden = self._override(b"") is not None
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def lstat(self, path: bytes) -> os.stat_result:
        """Give what is known of `path`, and instead of owner, mode and kind what an override says."""
        info = super().lstat(path)
        if not self._overridden or stat.S_ISLNK(info.st_mode):
            return info
        override = self._override(path)
        return info if override is None else override.over(info)

    def open_file(self, path: bytes, mode: int = 0) -> int:  # noqa: ARG002 - that is what an override says
        """Open the regular file `path` for reading."""
        return super().open_file(path)

    def xattrs(self, path: bytes, wanted: Callable[[bytes], bool] | None = None, *, fd: int = -1) -> dict[bytes, bytes]:
        """Give the extended attributes but for those of fuse-overlayfs."""
        return super().xattrs(path, lambda key: not _is_own(key) and (wanted is None or wanted(key)), fd=fd)

    def readlink(self, path: bytes) -> bytes:
        """Give what a symbolic link says, one that is a file here, too."""
        try:
            return super().readlink(path)
        except OSError as error:
            if error.errno != errno.EINVAL or not stat.S_ISLNK(self.lstat(path).st_mode):
                raise
        with open(self.open_file(path), "rb") as file:
            return file.read(_LONGEST_LINK)

    def is_opaque(self, directory: bytes) -> bool:
        """Tell whether an attribute hides what is below `directory`."""
        return b"y" in super().xattrs(directory, _OPAQUE.__contains__).values()

    def _override(self, path: bytes) -> override_stat.Override | None:
        return override_stat.chosen(super().xattrs(path, override_stat.KEYS.__contains__))


class MarksOfFuse(MarksOfAufs):
    """Files and devices; attributes of directories. The trees are FuseRoots."""

    def hidden_by(self, root: Root, path: bytes, is_special: bool) -> bytes | None:
        """Give the name that a device or a file hides."""
        if is_special and is_hidden(root.lstat(path)):
            return path
        return super().hidden_by(root, path, is_special)

    def is_gone(self, root: Root, path: bytes, info: os.stat_result | None) -> bool:
        """Look for either."""
        return (info is not None and is_hidden(info)) or super().is_gone(root, path, info)

    def is_opaque(self, root: Root, directory: bytes) -> bool:
        """Look at the attributes, then for the files."""
        return (isinstance(root, FuseRoot) and root.is_opaque(directory)) or super().is_opaque(root, directory)


def _is_own(key: bytes) -> bool:
    return key.startswith(_OWN) or key == override_stat.KEY
