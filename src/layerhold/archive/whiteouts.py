"""How an archive, and how a tree, shows that a name of a lower layer is gone.

In an archive (the AUFS spelling, which OCI layers have kept): an entry `d/.wh.x` hides `d/x`, and `d/.wh..wh..opq`
hides all that lower layers have in `d`. Both are about *lower* layers only: what the same archive brings stays.

In a tree: with ERASE the name is simply not there, since the tree is whole. With OVERLAY_MARKS the tree holds one
layer, and a character device 0/0 stands for a hidden name, an extended attribute for a hidden directory content. With
AUFS_MARKS it holds one layer, and whiteouts are files named as in an archive; other names at its top that begin with
`.wh..wh.` are AUFS's own. Such trees are only read. With FUSE_MARKS both kinds are read (fuse_layers.py), and files
made.
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.values import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from layerhold.tree.root import Root

ERASE = "erase"
NO_DELETIONS = "no-deletions"  # names that look like whiteouts are names like others
OVERLAY_MARKS = "overlay-marks"
AUFS_MARKS = "aufs-marks"
FUSE_MARKS = "fuse-marks"

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


def is_of_aufs(path: bytes) -> bool:
    """Tell whether a name is AUFS's own and no part of a layer."""
    return path.startswith(META_PREFIX) and path != OPAQUE_NAME


class Marks(Protocol):
    """How the tree of one layer tells what it hides of those below it."""

    def hidden_by(self, root: Root, path: bytes, is_special: bool) -> bytes | None:
        """Give the path that the name `path` hides, b"" if it is no part of the layer otherwise; None if it is one."""

    def is_gone(self, root: Root, path: bytes, info: os.stat_result | None) -> bool:
        """Tell whether the layer hides `path`, at which it has `info`."""

    def is_opaque(self, root: Root, directory: bytes) -> bool:
        """Tell whether the layer hides all that is below it in its `directory`."""


class MarksOfOverlay:
    """Devices and attributes."""

    def __init__(self, xattr_prefix: str) -> None:
        self._opaque = opaque_key(xattr_prefix)

    def hidden_by(self, root: Root, path: bytes, is_special: bool) -> bytes | None:
        """Give `path` itself if it is the mark."""
        return path if is_special and is_hidden(root.lstat(path)) else None

    def is_gone(self, root: Root, path: bytes, info: os.stat_result | None) -> bool:  # noqa: ARG002
        """Tell whether `info` is that of the mark."""
        return info is not None and is_hidden(info)

    def is_opaque(self, root: Root, directory: bytes) -> bool:
        """Look at the attribute."""
        return root.xattrs(directory, self._opaque.__eq__).get(self._opaque) == b"y"


class MarksOfAufs:
    """Files beside what they hide; as in an archive, what the layer itself has of that name stays."""

    def hidden_by(self, root: Root, path: bytes, is_special: bool) -> bytes | None:
        """Give the name without its beginning, unless the layer has that one itself."""
        if PREFIX not in path:
            return None
        directory, _, name = path.rpartition(b"/")
        if is_of_aufs(path) or name == OPAQUE_NAME:
            return b""
        if is_special or not name.startswith(PREFIX):
            return None
        hidden = join(directory, name[len(PREFIX) :])
        return b"" if root.has(hidden) else hidden

    def is_gone(self, root: Root, path: bytes, info: os.stat_result | None) -> bool:
        """Look for the whiteout."""
        return info is None and root.has(whiteout_of(path))

    def is_opaque(self, root: Root, directory: bytes) -> bool:
        """Look for the file in it, or for the whiteout of what was there before it."""
        return root.has(opaque_of(directory)) or root.has(whiteout_of(directory))


def marks(deletions: str, xattr_prefix: str) -> Marks:
    """Give the way to read the marks of a layer's tree."""
    return MarksOfAufs() if deletions == AUFS_MARKS else MarksOfOverlay(xattr_prefix)


class Deletions(Protocol):
    """How whiteouts of an archive are brought into a tree. `brought` says whether this archive has unpacked a path."""

    def hide(self, root: Root, path: bytes, brought: Callable[[bytes], bool]) -> bool:
        """Hide `path`; tell whether there is now a mark that is to get the entry's owner. May raise FileExistsError."""

    def hide_below(self, root: Root, directory: bytes, brought: Callable[[bytes], bool]) -> None:
        """Hide what lower layers have in `directory`."""

    def replaced(self, root: Root, directory: bytes, old: os.stat_result) -> None:
        """Take note that the new `directory` stands where `old` was, which may have been a mark."""

    def finish(self, root: Root) -> None:
        """Do what is left when all entries are in."""


class Erase:
    """The tree is whole: what is hidden is removed."""

    def hide(self, root: Root, path: bytes, brought: Callable[[bytes], bool]) -> bool:
        """Remove `path`; missing is fine."""
        try:
            root.remove(path, keep=brought)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return False

    def hide_below(self, root: Root, directory: bytes, brought: Callable[[bytes], bool]) -> None:
        """Remove what is in `directory`."""
        root.prune(directory, keep=brought)

    def replaced(self, root: Root, directory: bytes, old: os.stat_result) -> None:
        """Nothing is hidden by marks here."""

    def finish(self, root: Root) -> None:
        """Nothing is left."""


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

    def finish(self, root: Root) -> None:
        """Nothing is left."""


class FileMarks:
    """The tree is one layer: marks are files, for fuse-overlayfs. `prior` says that it had files before this archive.

    For fuse-overlayfs such a file hides also what the layer itself has of that name, unlike in an archive. So the mark
    of a name that is there in the end is taken away again.
    """

    def __init__(self, *, prior: bool) -> None:
        self._prior = prior
        self._hidden: list[bytes] = []

    def hide(self, root: Root, path: bytes, brought: Callable[[bytes], bool]) -> bool:
        """Put the file beside `path`. It belongs to who made it: nobody sees it."""
        if root.has(path):
            if is_hidden(root.lstat(path)):
                return False
            if brought(path) or not root.remove(path, keep=brought):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(path))
        self._make(root, whiteout_of(path))
        self._hidden.append(path)
        return False

    def hide_below(self, root: Root, directory: bytes, brought: Callable[[bytes], bool]) -> None:
        """Remove what this tree itself had in `directory`, and put the file into it."""
        if self._prior:
            root.prune(directory, keep=brought)
        self._make(root, opaque_of(directory))

    def replaced(self, root: Root, directory: bytes, old: os.stat_result) -> None:
        """Keep hidden what a device hid."""
        if is_hidden(old):
            self._make(root, opaque_of(directory))

    def finish(self, root: Root) -> None:
        """Take the marks of names that are there away: of a directory, only what is below it stays hidden."""
        for path in _marked(root) if self._prior else self._hidden:
            if root.has(path):
                if stat.S_ISDIR(root.lstat(path).st_mode):
                    self._make(root, opaque_of(path))
                root.remove(whiteout_of(path))

    @staticmethod
    def _make(root: Root, path: bytes) -> None:
        try:
            os.close(root.create(path))
        except FileExistsError:
            return


def _marked(root: Root) -> list[bytes]:
    """List what files in a tree hide."""
    found, left = [], [b""]
    while left:
        directory = left.pop()
        for path, is_directory, _ in root.listing(directory):
            name = path.rpartition(b"/")[2]
            if is_directory:
                left.append(path)
            elif name.startswith(PREFIX) and not name.startswith(META_PREFIX):
                found.append(join(directory, name[len(PREFIX) :]))
    return found


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
