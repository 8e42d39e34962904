"""The tree that a chain of layers should have made, from the headers of their tars, and how a real tree differs.

    tree = Expected(whole=...)
    tree.begin(); tree.add(entry) for each entry of the lowest layer; tree.differences(root)
    tree.begin(); ... the layer above ...;                            tree.differences(root)
    tree.undo()                                                       back to what was before the last `begin`

Compared are kind, owner, size, mode and time (whole seconds), and which names there are. Not compared are the root
directory, setuid, setgid and sticky bits, attributes, targets of links and numbers of devices (as in the Go library);
the content of files is a matter of their checksums (assemble.py).

What a tar does not say is not held against a tree: a directory that has no entry, but names below it; the time of one
that a layer changed without an entry for it; the mode of a link; times that cannot be stored. (Go's `check` reports
them, and its `check -r` then removes good images.)

An entry costs some 500 bytes, so a chain of layers with a million files takes 500 MB.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import partial

from layerhold.archive.entry import clean
from layerhold.archive.united import United
from layerhold.archive.whiteouts import OPAQUE_NAME, PREFIX, is_hidden, is_mark, is_of_aufs, join
from layerhold.errors import StorageError
from layerhold.progress import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from layerhold.archive.entry import Entry
    from layerhold.archive.united import Tree
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Meter

    Look = tuple[int, int, int, int, int, int]

_FIELDS = ("filetype", "uid", "gid", "size", "mode", "mtime")
_FORMATS = ("%d", "%d", "%d", "%d", "%04o", "0x%x")
_OWNER = frozenset({1, 2})
_MODE, _TIME = 4, 5
_ALL = frozenset(range(1, 6))
_STRICT: frozenset[int] = frozenset()
_JUST_TIME = frozenset({_TIME})

_FILE, _HARD_LINK, _SYMLINK, _DIRECTORY = b"0"[0], b"1"[0], b"2"[0], b"5"[0]
_KINDS = {
    stat.S_IFREG: _FILE,
    stat.S_IFLNK: _SYMLINK,
    stat.S_IFCHR: b"3"[0],
    stat.S_IFBLK: b"4"[0],
    stat.S_IFDIR: _DIRECTORY,
    stat.S_IFIFO: b"6"[0],
}
_LATEST = (1 << 63) - 1  # nanoseconds; what is later, or before 1970, is unpacked as 1970
_LINKS_ON_ONE_WAY = 40


class _Node:
    """A name in the tree: how it should look, what of that is not compared, the layer that brought it.

    The names of one inode share a node. `link` is where a symbolic link leads.
    """

    __slots__ = ("children", "layer", "link", "look", "loose")

    def __init__(self, look: Look, layer: int, *, link: bytes = b"", loose: frozenset[int] = _STRICT) -> None:
        self.look = look
        self.layer = layer
        self.link = link
        self.loose = loose
        self.children: dict[bytes, _Node] | None = {} if look[0] == _DIRECTORY else None

    def set(self, look: Look, layer: int, loose: frozenset[int]) -> None:
        """Change all but the kind."""
        self.look, self.layer, self.loose = look, layer, loose


class Expected:
    """The expected tree.

    With `whole` each layer was unpacked over all that is below it, and so entries went through the links there (vfs);
    else each was unpacked by itself, and the kernel shows one over the other (overlay). Names that are AUFS's own are
    no part of the tree where it is whole, or that of an AUFS store.
    """

    def __init__(self, *, whole: bool, aufs: bool = False) -> None:
        self._whole = whole
        self._without_names_of_aufs = whole or aufs
        self._root = _Node((_DIRECTORY, 0, 0, 0, 0, 0), 0, loose=_ALL)
        self._layer = 0
        self._journal: list[list[Callable[[], object]]] = []  # what takes back the changes of each layer
        self._last: tuple[bytes, _Node] | None = None

    # --- layers

    def begin(self) -> None:
        """Start a layer over what there is."""
        self._layer += 1
        self._journal.append([])
        self._last = None

    def undo(self) -> None:
        """Take back the last layer that was begun."""
        for restore in reversed(self._journal.pop()):
            restore()
        self._last = None

    def add(self, entry: Entry) -> None:
        """Take in an entry of the layer."""
        path = entry.path
        if entry.kind == b"g" or not path:
            return
        if PREFIX in path:
            if self._without_names_of_aufs and is_of_aufs(path):
                return
            if is_mark(path):
                self._hide(path)
                return
        directory, _, name = path.rpartition(b"/")
        above = self._directory(directory)
        if entry.kind == b"1":
            self._link(entry, above, name)
            return
        look = _look_of(entry)
        old = _child(above, name)
        if look[0] == _DIRECTORY and old is not None and old.children is not None:
            self._change(old, look, _STRICT)
            return
        self._put(above, name, _Node(look, self._layer, link=entry.linkname))

    def _link(self, entry: Entry, above: _Node, name: bytes) -> None:
        """Give an inode one more name; what the header says of it then holds for all its names."""
        directory, _, old_name = clean(entry.linkname).rpartition(b"/")
        target = _child(self._directory(directory), old_name)
        if target is None or target.children is not None:
            return
        kind, _uid, _gid, size, mode, _mtime = target.look
        _kind, uid, gid, _size, new_mode, mtime = _look_of(entry)
        self._change(target, (kind, uid, gid, size, mode if kind == _SYMLINK else new_mode, mtime), target.loose)
        self._put(above, name, target)

    def _hide(self, path: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        above = self._directory(directory)
        assert above.children is not None
        if name == OPAQUE_NAME:
            self._clear(above, list(above.children))
        elif name[len(PREFIX) :] in above.children:
            self._clear(above, [name[len(PREFIX) :]])

    def _clear(self, above: _Node, names: Sequence[bytes]) -> None:
        """Remove `names` and all below them, but not what this layer brought, and the way to that."""
        found = [(above, name, node) for name in names if (node := _child(above, name)) is not None]
        for _above, _name, node in found:
            found.extend((node, name, child) for name, child in (node.children or {}).items())
        kept: set[int] = set()
        for parent, _name, node in reversed(found):
            if node.layer == self._layer or id(node) in kept:
                kept.update((id(node), id(parent)))
        gone: set[int] = set()
        for parent, name, node in found:
            if id(node) not in kept:
                gone.add(id(node))
                if id(parent) not in gone:
                    self._drop(parent, name)

    def _directory(self, path: bytes) -> _Node:
        """Find the directory that an entry is in, through links as when it was unpacked; make what is missing."""
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        way = [self._root]
        left = path.split(b"/")[::-1]
        links = 0
        while left:
            name = left.pop()
            if name == b"..":
                way = way[:-1] or way
            if name in (b"", b".", b".."):
                continue
            node = _child(way[-1], name)
            if node is not None and self._leads_on(node) and links < _LINKS_ON_ONE_WAY:
                links += 1
                way = way[:1] if node.link.startswith(b"/") else way
                left.extend(node.link.split(b"/")[::-1])
            else:
                way.append(self._entered(way[-1], name, node))
        self._last = path, way[-1]
        return way[-1]

    def _entered(self, above: _Node, name: bytes, node: _Node | None) -> _Node:
        """Give the directory `name`, in which something changes now: no longer all that its entry said need hold."""
        if node is None or node.children is None:
            node = _Node((_DIRECTORY, 0, 0, 0, 0o755, 0), 0, loose=_ALL)
            self._put(above, name, node)
        elif node.layer != self._layer:
            loose = node.loose | _JUST_TIME if self._whole else _ALL
            if loose != node.loose:
                self._change(node, node.look, loose, layer=node.layer)
        return node

    def _leads_on(self, node: _Node) -> bool:
        return node.look[0] == _SYMLINK and (self._whole or node.layer == self._layer)

    # --- changes that can be undone

    def _put(self, above: _Node, name: bytes, node: _Node) -> None:
        children = above.children
        assert children is not None
        old = children.get(name)
        restore = partial(children.pop, name) if old is None else partial(children.__setitem__, name, old)
        self._journal[-1].append(restore)
        children[name] = node
        self._last = None

    def _drop(self, above: _Node, name: bytes) -> None:
        children = above.children
        assert children is not None
        self._journal[-1].append(partial(children.__setitem__, name, children.pop(name)))
        self._last = None

    def _change(self, node: _Node, look: Look, loose: frozenset[int], layer: int | None = None) -> None:
        self._journal[-1].append(partial(node.set, node.look, node.layer, node.loose))
        node.set(look, self._layer if layer is None else layer, loose)

    # --- comparing

    def differences(
        self,
        root: Tree,
        *,
        marks: bool = False,
        mappings: IdMappings | None = None,
        owners: bool = True,
        meter: Meter | None = None,
    ) -> list[str]:
        """Say how the tree below `root` differs, by path: `+/added`, `-/gone/`, `/changed(field:a￫b)`, as Go says it.

        With `marks` overlay's marks of deleted names are passed over. The owners on disk are those that `mappings`
        give; without `owners` they are not compared. The meter counts what is looked at. Raises OSError.
        """
        comparison = _Comparison(root, marks, mappings, _STRICT if owners else _OWNER, meter)
        comparison.left.append((b"", self._root))
        while comparison.left:
            comparison.visit(*comparison.left.pop())
        return [text for _path, text in sorted(comparison.found)]


class _Comparison:
    """One comparison on its way: the directories that are left, and what was found, with the paths that it is about."""

    def __init__(
        self, root: Tree, marks: bool, mappings: IdMappings | None, skipped: frozenset[int], meter: Meter | None
    ) -> None:
        self._root = root
        self._meter = meter
        self._marks = marks
        self._mappings = mappings
        self._skipped = skipped
        self.left: list[tuple[bytes, _Node | None]] = []
        self.found: list[tuple[bytes, str]] = []

    def visit(self, directory: bytes, node: _Node | None) -> None:
        """Compare what is in a directory with what should be; `node` is None for one that should not be there."""
        expected = (node.children if node else None) or {}
        seen = set()
        for name, info in counted(_listing(self._root, directory), self._meter):
            if not (self._marks and is_hidden(info)) and self._is_known(
                join(directory, name), info, expected.get(name)
            ):
                seen.add(name)
        for name in expected.keys() - seen:
            self.found += _missing(join(directory, name), expected[name])

    def _is_known(self, path: bytes, info: os.stat_result, node: _Node | None) -> bool:
        """Compare one name; tell whether there should be something of its kind."""
        is_directory = stat.S_ISDIR(info.st_mode)
        if node is not None and (node.children is not None) != is_directory:
            node = None
        if is_directory:
            self.left.append((path, node))
        if node is None:
            self.found.append((path, f"+{_spelled(path, is_directory)}"))
            return False
        if text := _changed(node, _look_on_disk(info, self._mappings), self._skipped):
            text = f"{_spelled(path, False)}({text})"
            self.found += [(path, text)] if is_directory else [(path, "+" + text), (path, text)]
        return True


def _child(node: _Node, name: bytes) -> _Node | None:
    return None if node.children is None else node.children.get(name)


def _look_of(entry: Entry) -> Look:
    kind = _FILE if entry.sparse is not None else entry.kind[0]
    mtime = entry.mtime if 0 <= entry.mtime <= _LATEST else 0
    size = entry.real_size if kind == _FILE else 0
    return kind, entry.uid, entry.gid, size, entry.mode & 0o7777, mtime // 1_000_000_000


def _look_on_disk(info: os.stat_result, mappings: IdMappings | None) -> Look:
    uid, gid = info.st_uid, info.st_gid
    if mappings is not None:
        with suppress(StorageError):  # then the numbers of the host show that something is wrong
            uid, gid = mappings.to_container(uid, gid)
    kind = _KINDS.get(stat.S_IFMT(info.st_mode), 0)
    size = info.st_size if kind == _FILE else 0
    return kind, uid, gid, size, stat.S_IMODE(info.st_mode), info.st_mtime_ns // 1_000_000_000


def _changed(node: _Node, now: Look, skipped: frozenset[int]) -> str:
    """Give the fields that are not as expected."""
    if node.look == now:
        return ""
    both_links = node.look[0] == now[0] == _SYMLINK
    found = []
    for number, (name, form, was, is_) in enumerate(zip(_FIELDS, _FORMATS, node.look, now, strict=True)):
        differs = (was ^ is_) & 0o777 and not both_links if number == _MODE else was != is_
        if differs and number not in node.loose and number not in skipped:
            found.append(f"{name}:{form % was}￫{form % is_}")
    return ",".join(found)


def _missing(path: bytes, top: _Node) -> Iterator[tuple[bytes, str]]:
    """List what is gone with `path`; directories that no entry ever named may be missing."""
    left = [(path, top)]
    while left:
        here, node = left.pop()
        left.extend((join(here, name), child) for name, child in (node.children or {}).items())
        if node.loose != _ALL or node.layer:
            yield here, f"-{_spelled(here, node.children is not None)}"


def _listing(root: Tree, directory: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    if isinstance(root, United):
        for path, _is_directory, _is_special in root.listing(directory):
            yield path.rpartition(b"/")[2], root.lstat(path)
        return
    fd = root.open_directory(directory)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                yield os.fsencode(entry.name), entry.stat(follow_symlinks=False)
    finally:
        os.close(fd)


def _spelled(path: bytes, is_directory: bool) -> str:
    return f"/{os.fsdecode(path)}{'/' if is_directory else ''}"
