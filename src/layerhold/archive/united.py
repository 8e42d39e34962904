"""The tree that layers show, one over the other, read without a mount.

`United` has what a `Root` has for reading, so that trees are compared and packed whichever they are. Of each directory
the layers are known in which it is to be seen, and which of them has each name; only so much is kept as a walk needs.
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.blocks import ExitStack
from layerhold.tree.root import Root
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Self

    from layerhold.archive.whiteouts import Marks
    from layerhold.tree.root import Name

_KEPT = 256  # directories
_MAX_LINKS = 40  # as the kernel


class _Directory(Value):
    """A directory: the layers in which it is to be seen, nearest first, and for each name the layer that has it."""

    roots: Sequence[Root]
    names: dict[bytes, tuple[Root, Name]]


class United:
    """The directories `paths`, nearest first, of layers whose marks are read by `marks`. To be used as a block.

    `root` opens each.
    """

    def __init__(self, paths: Sequence[str], marks: Marks, *, root: Callable[[str], Root] = Root) -> None:
        self._paths = paths
        self._marks = marks
        self._open = root
        self._roots: Sequence[Root] = ()
        self._known: dict[bytes, _Directory] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        try:
            self._roots = [self._stack.enter_context(self._open(path)) for path in self._paths]
        except BaseException:
            self._stack.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._known = {}
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def listing(self, directory: bytes) -> list[Name]:
        """Give what is in `directory`, as Root does."""
        return sorted(name for _root, name in self._directory(directory).names.values())

    def lstat(self, path: bytes) -> os.stat_result:
        """Give what is known of `path` itself (b"": of the top)."""
        return self._having(path).lstat(path)

    def has(self, path: bytes) -> bool:
        """Tell whether there is a name `path`."""
        try:
            self._having(path)
        except FileNotFoundError:
            return False
        return True

    def readlink(self, path: bytes) -> bytes:
        """Give what a symbolic link says."""
        return self._having(path).readlink(path)

    def xattrs(self, path: bytes, wanted: Callable[[bytes], bool] | None = None, *, fd: int = -1) -> dict[bytes, bytes]:
        """Give the extended attributes, or only those whose names are `wanted`, as Root does."""
        return self._having(path).xattrs(path, wanted, fd=fd)

    def open_file(self, path: bytes, mode: int = 0) -> int:
        """Open the regular file `path` for reading, as Root does."""
        return self._having(path).open_file(path, mode)

    def resolved(self, path: bytes) -> bytes:
        """Give `path` without links on the way to its last name, as `chroot` follows them. Raises OSError (ELOOP)."""
        way: list[bytes] = []
        left = path.split(b"/")[::-1]
        links = 0
        while left:
            name = left.pop()
            if name == b"..":
                way = way[:-1]
            if name in (b"", b".", b".."):
                continue
            here = b"/".join((*way, name))
            if not left or not self.has(here) or not stat.S_ISLNK(self.lstat(here).st_mode):
                way.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
            target = self.readlink(here)
            way = [] if target.startswith(b"/") else way
            left += target.split(b"/")[::-1]
        return b"/".join(way)

    def follow(self, path: bytes) -> bytes:
        """Give the path of what `path` leads to when links at its end are followed, too. Raises OSError (ELOOP)."""
        for _ in range(_MAX_LINKS):
            path = self.resolved(path)
            if not path or not stat.S_ISLNK(self.lstat(path).st_mode):
                return path
            target = self.readlink(path)
            path = target if target.startswith(b"/") else path[: path.rfind(b"/") + 1] + target
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))

    def _having(self, path: bytes) -> Root:
        """Give the layer whose `path` is to be seen. Raises FileNotFoundError."""
        if not path:
            return self._roots[0]
        found = self._directory(path.rpartition(b"/")[0]).names.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        return found[0]

    def _directory(self, path: bytes) -> _Directory:
        found = self._known.get(path)
        if found is None:
            roots = self._seen_in(path)
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[path] = _Directory(roots=roots, names=self._names(path, roots))
        return found

    def _seen_in(self, path: bytes) -> Sequence[Root]:
        """Give the layers whose directory `path` is to be seen: down to one that hides the rest."""
        if not path:
            return self._roots
        found = []
        for root in self._directory(path.rpartition(b"/")[0]).roots:
            info = root.lstat(path) if root.has(path) else None
            if self._marks.is_gone(root, path, info):
                break
            if info is None:
                continue
            if not stat.S_ISDIR(info.st_mode):
                break
            found.append(root)
            if self._marks.is_opaque(root, path):
                break
        if not found:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        return found

    def _names(self, directory: bytes, roots: Sequence[Root]) -> dict[bytes, tuple[Root, Name]]:
        names: dict[bytes, tuple[Root, Name]] = {}
        hidden: set[bytes] = set()
        for root in roots:
            marked = set()
            for name in root.listing(directory):
                path, _is_directory, is_special = name
                hides = self._marks.hidden_by(root, path, is_special)
                if hides is not None:
                    marked.add(hides)
                elif path not in hidden:
                    names.setdefault(path, (root, name))
            hidden |= marked
        return names


Tree = Root | United


def opened(tree: str | United) -> AbstractContextManager[Tree]:
    """Give the block in which a tree, that of a directory if it is a path, can be read."""
    return Root(tree) if isinstance(tree, str) else tree
