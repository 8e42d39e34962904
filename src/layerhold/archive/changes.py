"""What differs between two trees.

Three cases, told apart by what a driver gives (drivers/base.py: Contents):

- one layer over its lowers (`lowers` is not None): what is in it is a change. A mark (whiteouts.py) deletes, an opaque
  directory that hides one below deletes that one, a name that a lower has is modified, any other added.
- two whole trees (`base` is given): walked side by side; what has the same device and inode in both is skipped with all
  below it. Compared are type and mode, owner, device number, size and time (of directories the time alone), the target
  of links, file capabilities and `user.*` attributes, as Go has done since 1.57. The order is that of the paths' bytes:
  Go lists them in any order, but writes them to a tar in this one.
- one whole tree and nothing to compare with: everything is added.

A directory in which something was added or deleted is listed as modified before it. Where nothing else is said, the
order is that of a walk, as in Go: each directory, then all that is in it, names by their bytes. (`a/b` comes before
`a-b` in a walk and after it in the order of bytes.)

Links are never followed, and where a lower has a file in place of a directory, what this layer has below it is added
(Go's programs fail there). What an opaque directory of a lower hides is not there (Go's programs look behind it).
"""

from __future__ import annotations

import os
import stat

from layerhold.archive.united import opened
from layerhold.archive.whiteouts import ERASE, OVERLAY_MARKS, marks
from layerhold.blocks import ExitStack
from layerhold.errors import StorageError
from layerhold.progress import counted
from layerhold.tree.root import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from layerhold.archive.united import Tree, United
    from layerhold.archive.whiteouts import Marks
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Meter
    from layerhold.tree.root import Name

    Maps = tuple[IdMappings | None, IdMappings | None]
    Found = tuple[bytes, int, bool]

MODIFY, ADD, DELETE = 0, 1, 2

_CAPABILITY = b"security.capability"


class Change:
    """One path (bytes, with a leading slash) and what happened to it: MODIFY, ADD or DELETE."""

    __slots__ = ("kind", "path")

    def __init__(self, path: bytes, kind: int) -> None:
        self.path = path
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Change) and (self.path, self.kind) == (other.path, other.kind)

    def __hash__(self) -> int:
        return hash((self.path, self.kind))

    def __repr__(self) -> str:
        return f"Change({self.path!r}, {('MODIFY', 'ADD', 'DELETE')[self.kind]})"


def between(
    base: str | United | None,
    path: str | United,
    *,
    deletions: str,
    lowers: Sequence[str] | None,
    xattr_prefix: str = "trusted.overlay.",
    maps: Maps | None = None,
    meter: Meter | None = None,
) -> Iterator[Change]:
    """Say what the tree at `path` (as a driver describes it) changes against the whole tree `base`. Raises OSError.

    `maps` say who the owners of `base`, and those of `path`, are in a container, if these are not the same. The meter
    counts the names that are looked at.
    """
    with ExitStack() as stack:
        new = stack.enter_context(opened(path))
        if isinstance(new, Root) and lowers is not None and deletions != ERASE:
            below = [stack.enter_context(Root(lower)) for lower in lowers]
            layer = _Layer(new, below, marks(deletions, xattr_prefix))
            listed = _with_parents(layer.changes(meter), also_modified=False) if below else layer.added(meter)
        elif base is None:
            listed = _with_parents(_everything(new, meter), also_modified=False)
        else:
            found = compared(stack.enter_context(opened(base)), new, maps, meter)
            listed = iter(sorted(_with_parents(found, also_modified=True)))
        for name, kind in listed:
            yield Change(b"/" + name, kind)


def diff_size(
    base: str | United | None,
    path: str | United,
    *,
    deletions: str,
    lowers: Sequence[str] | None,
    xattr_prefix: str = "trusted.overlay.",
    maps: Maps | None = None,
    meter: Meter | None = None,
) -> int:
    """Count the bytes of the files (no directories) that were added or modified, each inode once.

    Those of an overlay layer, and of a tree alone, are all that there are: marks are devices, which have no bytes.
    """
    counted_once = _Sizes()
    with opened(path) as root:
        of_layer = lowers is not None and deletions != ERASE
        if isinstance(root, Root) and (deletions == OVERLAY_MARKS if of_layer else base is None):
            with ExitStack() as stack:
                found = root.everything()
                stack.callback(found.close)
                for info in counted(found, meter):
                    counted_once.add(info)
            return counted_once.total
        for change in between(
            base, path, deletions=deletions, lowers=lowers, xattr_prefix=xattr_prefix, maps=maps, meter=meter
        ):
            if change.kind != DELETE:
                counted_once.add(root.lstat(change.path[1:]))
    return counted_once.total


class _Sizes:
    """The bytes of files, each inode once."""

    def __init__(self) -> None:
        self.total = 0
        self._seen: set[tuple[int, int]] = set()

    def add(self, info: os.stat_result) -> None:
        if stat.S_ISDIR(info.st_mode):
            return
        if info.st_nlink > 1:
            inode = info.st_dev, info.st_ino
            if inode in self._seen:
                return
            self._seen.add(inode)
        self.total += info.st_size


def hides_below(root: Root, lowers: Sequence[Root], of_layer: Marks) -> Callable[[bytes], bool]:
    """Give the test whether a directory of a layer is opaque and there is something below that it hides."""
    return _Layer(root, lowers, of_layer).hides_below


def walk(root: Tree, top: bytes = b"") -> Iterator[Name]:
    """Go through a tree, or what is below `top` in it, each directory before what is in it."""
    stack = [iter(root.listing(top))]
    while stack:
        for name in stack[-1]:
            yield name
            if name[1]:
                stack.append(iter(root.listing(name[0])))
                break
        else:
            stack.pop()


def _with_parents(found: Iterator[Found], *, also_modified: bool) -> Iterator[tuple[bytes, int]]:
    """List, before what was added or deleted, those directories above it that are not listed yet.

    Go does so for what was modified, too, when it compares whole trees.
    """
    listed = {b""}
    complete = {b""}  # directories that are listed with all above them
    for path, kind, is_directory in found:
        if is_directory:
            listed.add(path)
        directory = path.rpartition(b"/")[0]
        if (kind != MODIFY or also_modified) and directory not in complete:
            complete.add(directory)
            for above in _above(directory):
                if above not in listed:
                    listed.add(above)
                    yield above, MODIFY
        yield path, kind


def _above(directory: bytes) -> list[bytes]:
    """Give a directory and those above it, the topmost first."""
    parts = directory.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _everything(root: Tree, meter: Meter | None) -> Iterator[Found]:
    for path, is_directory, _ in counted(walk(root), meter):
        yield path, ADD, is_directory


class _Layer:
    """One layer and what is below it."""

    def __init__(self, root: Root, lowers: Sequence[Root], of_layer: Marks) -> None:
        self._root = root
        self._marks = of_layer
        # For each directory on the way: the lowers in which it is to be seen, nearest first.
        self._visible: dict[bytes, Sequence[Root]] = {b"": lowers}

    def added(self, meter: Meter | None) -> Iterator[tuple[bytes, int]]:
        """What a layer without lowers changes: each directory is listed before what is in it."""
        for path, _is_directory, is_special in counted(walk(self._root), meter):
            hidden = self._marks.hidden_by(self._root, path, is_special)
            if hidden is None:
                yield path, ADD
            elif hidden:
                yield hidden, DELETE

    def changes(self, meter: Meter | None) -> Iterator[Found]:
        for path, is_directory, is_special in counted(walk(self._root), meter):
            hidden = self._marks.hidden_by(self._root, path, is_special)
            if hidden:
                yield hidden, DELETE, False
            elif hidden is None and (kind := self._kind(path, is_directory)) is not None:
                yield path, kind, is_directory

    def hides_below(self, path: bytes) -> bool:
        """Tell whether the directory `path` is opaque and there is something below that it hides."""
        directory = path.rpartition(b"/")[0]
        lowers = self._seen_from(directory)
        return self._marks.is_opaque(self._root, path) and self._first(path, lowers) is not None

    def _kind(self, path: bytes, is_directory: bool) -> int | None:
        lowers = self._seen_from(path.rpartition(b"/")[0])
        if not lowers:
            if is_directory:
                self._visible[path] = ()
            return ADD
        below = self._first(path, lowers)
        if is_directory:
            opaque = self._marks.is_opaque(self._root, path)
            self._visible[path] = () if opaque else self._visible_in(path, lowers)
            if opaque and below is not None:
                return DELETE
        if below is None:
            return ADD
        if is_directory and stat.S_ISDIR(below.st_mode) and _same_directory(below, self._root.lstat(path)):
            return None
        return MODIFY

    def _seen_from(self, directory: bytes) -> Sequence[Root]:
        found = self._visible.get(directory)
        if found is None:
            above = self._seen_from(directory.rpartition(b"/")[0])
            opaque = self._marks.is_opaque(self._root, directory)
            found = self._visible[directory] = () if opaque else self._visible_in(directory, above)
        return found

    def _first(self, path: bytes, lowers: Sequence[Root]) -> os.stat_result | None:
        """Look for `path` from the nearest lower on; a whiteout says that there is none."""
        for lower in lowers:
            info = _lstat(lower, path)
            if self._marks.is_gone(lower, path, info):
                return None
            if info is not None:
                return info
        return None

    def _visible_in(self, path: bytes, lowers: Sequence[Root]) -> Sequence[Root]:
        """Those of the lowers whose directory `path` is to be seen: down to one that hides the rest."""
        found = []
        for lower in lowers:
            info = _lstat(lower, path)
            if self._marks.is_gone(lower, path, info):
                break
            if info is None:
                continue
            if not stat.S_ISDIR(info.st_mode):
                break
            found.append(lower)
            if self._marks.is_opaque(lower, path):
                break
        return found


def compared(old: Tree, new: Tree, maps: Maps | None, meter: Meter | None) -> Iterator[Found]:
    """Walk two whole trees side by side: each path that differs, how, and whether it is a directory now.

    An ordinary user's copies are his own, so owners say nothing there.
    """
    ordinary = os.geteuid() != 0
    stack = [counted(_paired(old, new, b""), meter)]
    while stack:
        for path, before, after in stack[-1]:
            if after is None:
                yield path, DELETE, False
                continue
            is_directory = after[1]
            if before is None:
                yield path, ADD, is_directory
            else:
                one, other = old.lstat(path), new.lstat(path)
                if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):
                    continue
                if not (ordinary or _same_owner(one, other, maps)) or _differ(old, new, path, one, other):
                    yield path, MODIFY, is_directory
            if is_directory:
                within = old if before is not None and before[1] else None
                stack.append(counted(_paired(within, new, path), meter))
                break
        else:
            stack.pop()


def _paired(old: Tree | None, new: Tree, directory: bytes) -> Iterator[tuple[bytes, Name | None, Name | None]]:
    """Give the names of a directory in both trees, in one order."""
    before = {name[0]: name for name in old.listing(directory)} if old is not None else {}
    after = {name[0]: name for name in new.listing(directory)}
    return iter([(path, before.get(path), after.get(path)) for path in sorted(before.keys() | after.keys())])


def _same_owner(one: os.stat_result, other: os.stat_result, maps: Maps | None) -> bool:
    if maps is None:
        return (one.st_uid, one.st_gid) == (other.st_uid, other.st_gid)
    return _inside(maps[0], one) == _inside(maps[1], other)


def _inside(mappings: IdMappings | None, info: os.stat_result) -> tuple[int, int]:
    """Give the owner in the container; one whom the maps do not cover is the same there."""
    owner = info.st_uid, info.st_gid
    try:
        return owner if mappings is None else mappings.to_container(*owner)
    except StorageError:
        return owner


def _differ(old: Tree, new: Tree, path: bytes, one: os.stat_result, other: os.stat_result) -> bool:
    if (one.st_mode, one.st_rdev) != (other.st_mode, other.st_rdev):
        return True
    if not _same_time(one.st_mtime_ns, other.st_mtime_ns):
        return True
    kind = stat.S_IFMT(one.st_mode)
    if kind != stat.S_IFDIR and one.st_size != other.st_size:
        return True
    if kind == stat.S_IFLNK:
        return old.readlink(path) != new.readlink(path)
    return kind in (stat.S_IFREG, stat.S_IFDIR) and old.xattrs(path, _is_compared) != new.xattrs(path, _is_compared)


def _same_directory(one: os.stat_result, other: os.stat_result) -> bool:
    return (
        one.st_size == other.st_size and one.st_mode == other.st_mode and _same_time(one.st_mtime_ns, other.st_mtime_ns)
    )


def _same_time(one: int, other: int) -> bool:
    """Tell whether two times are the same as far as both are known: one that was cut to seconds has no nanoseconds."""
    if one == other:
        return True
    seconds, nanoseconds = divmod(one, 10**9)
    other_seconds, other_nanoseconds = divmod(other, 10**9)
    return seconds == other_seconds and 0 in (nanoseconds, other_nanoseconds)


def _is_compared(key: bytes) -> bool:
    return key == _CAPABILITY or (key.startswith(b"user.") and not key.startswith(b"user.overlay."))


def _lstat(root: Root, path: bytes) -> os.stat_result | None:
    try:
        return root.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
