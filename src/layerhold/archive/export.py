"""A tree, or what changed in it, as the bytes of a tar.

Headers as the Go library writes them since 1.57: USTAR where everything fits, with PAX records in front only for what
does not (long or non-ASCII names, large numbers, attributes); permission and setid bits as the mode, no names of users,
times cut to whole seconds. A file whose inode was seen before is a hard link to the first name. Sockets are left out.
Two zero blocks end it.

What is gone becomes a whiteout entry. In an overlay layer it is a 0/0 device; the whiteout gets its owner and time. An
opaque directory that hides something is followed by its `.wh..wh..opq`. An AUFS layer has such files itself.

Where Go's programs log a line and leave a file out, this raises: a file that cannot be read, an owner that the maps of
its layer do not cover, an attribute that no PAX record can name. So it does if a file changes its size meanwhile.
"""

from __future__ import annotations

import os
import stat
import time

from layerhold.archive.changes import DELETE, hides_below, walk
from layerhold.archive.compress import adler32
from layerhold.archive.united import opened
from layerhold.archive.whiteouts import (
    AUFS_MARKS,
    OVERLAY_MARKS,
    is_hidden,
    is_of_aufs,
    marks,
    opaque_of,
    whiteout_of,
)
from layerhold.blocks import ExitStack
from layerhold.errors import DamagedLayer, StorageError
from layerhold.tree.root import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from layerhold.archive.changes import Change
    from layerhold.archive.united import Tree, United
    from layerhold.ids.mappings import IdMappings

BLOCK = 512
_READ = 256 << 10  # of more, the memory is given back and taken anew each time, at twice the cost of the whole.
_GATHER = 256 << 10
_SMALL = 64 << 10  # a file up to this goes on in one piece with its header
_END = bytes(2 * BLOCK)
_KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_NO_DEVICE = (0, 0)
_ZERO_DEVICE = b"0000000\0" * 2
_XATTRS = (b"security.capability", b"security.ima")
_MOST_TAILS = 64
# What follows the checksum in a header, and its share of that: mostly the same for each file.
_tails: dict[tuple[bytes, bytes, bytes, bytes], tuple[bytes, int]] = {}
_LARGEST_ID, _LARGEST_SIZE, _LARGEST_TIME = 0o7777777, 0o77777777777, 0o77777777777


def tar(
    path: str | United,
    *,
    changes: Iterable[Change] | None,
    deletions: str,
    lowers: Sequence[str] | None,
    xattr_prefix: str = "trusted.overlay.",
    mappings: IdMappings | None = None,
) -> Iterator[bytes]:
    """Write the tree at `path` as a tar, or only `changes` of it; `mappings` say who its owners are in a container.

    Raises OSError, DamagedLayer (a file changes its size meanwhile), StorageError (what a tar cannot hold).
    """
    # Looking for changes may give an ordinary user rights on directories for a while: their modes are to be true again.
    listed = None if changes is None else list(changes)
    with ExitStack() as stack:
        root = stack.enter_context(opened(path))
        writer = _Writer(root, mappings)
        if listed is not None:
            entries = _changed(writer, listed)
        elif deletions == OVERLAY_MARKS and isinstance(root, Root):
            below = [stack.enter_context(Root(lower)) for lower in lowers or ()]
            entries = _layer(writer, hides_below(root, below, marks(deletions, xattr_prefix)))
        else:
            entries = _tree(writer, passed_over=is_of_aufs if deletions == AUFS_MARKS else None)
        yield from _gathered(entries)
        yield _END


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Put small chunks together, so that what comes after this has fewer to handle; large ones go on as they are."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        if len(chunk) >= _GATHER:
            if waiting:
                yield b"".join(waiting)
                waiting, size = [], 0
            yield chunk
            continue
        waiting.append(chunk)
        size += len(chunk)
        if size >= _GATHER:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _tree(writer: _Writer, passed_over: Callable[[bytes], bool] | None) -> Iterator[bytes]:
    for path, _, _ in walk(writer.root):
        if passed_over is None or not passed_over(path):
            yield from writer.file(path, writer.root.lstat(path))


def _changed(writer: _Writer, changes: Iterable[Change]) -> Iterator[bytes]:
    for change in changes:
        path = change.path[1:]
        if change.kind == DELETE:
            yield writer.mark(whiteout_of(path), mtime=int(time.time()))
        else:
            yield from writer.file(path, writer.root.lstat(path))


def _layer(writer: _Writer, hides: Callable[[bytes], bool]) -> Iterator[bytes]:
    for path, is_directory, is_special in walk(writer.root):
        info = writer.root.lstat(path)
        if is_special and is_hidden(info):
            yield writer.whiteout(path, info)
            continue
        yield from writer.file(path, info)
        if is_directory and hides(path):
            yield writer.mark(opaque_of(path), info, mode=stat.S_IMODE(info.st_mode) & 0o777)


class _Writer:
    """Entries for the files below `root`."""

    def __init__(self, root: Tree, mappings: IdMappings | None) -> None:
        self.root = root
        self._mappings = mappings
        self._first_names: dict[tuple[int, int], bytes] = {}

    def mark(
        self, name: bytes, info: os.stat_result | None = None, *, mode: int = 0, mtime: int = 0, target: bytes = b""
    ) -> bytes:
        """Give a whiteout's entry, with the owner of `info`."""
        owner = (0, 0)
        if info is not None:
            # The kernel makes whiteouts as the host's root. Go's programs lose those that the maps do not cover.
            try:
                owner = self._owner(name, info)
            except StorageError:
                owner = (0, 0)
        return header(name, b"0", mode=mode, owner=owner, mtime=mtime, target=target)

    def whiteout(self, path: bytes, info: os.stat_result) -> bytes:
        """Give the entry of a 0/0 device.

        The kernel makes several of them one inode. As Go's programs do, all but the first then name the first as the
        target of a link, though they are no links: the tars are to be equal.
        """
        first = self._first_name(path, info)
        target = first if first != path else b""
        return self.mark(whiteout_of(path), info, mtime=info.st_mtime_ns // 10**9, target=target)

    def file(self, path: bytes, info: os.stat_result) -> Iterable[bytes]:
        """Give the entry of what is at `path`: its header, then its content."""
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:  # a socket: there is no entry for it
            return ()
        first = self._first_name(path, info)
        if first != path:
            return (self._header(path, b"1", info, target=first),)
        if kind == b"0" and info.st_size:
            return self._small_file(path, info) or self._file(path, info)
        if kind == b"2":
            return (self._header(path, kind, info, target=self.root.readlink(path)),)
        return (self._header(path + b"/" if kind == b"5" else path, kind, info),)

    def _small_file(self, path: bytes, info: os.stat_result) -> tuple[bytes, ...]:
        """Give the entry of a file that comes by one read, in one piece; nothing if it does not."""
        size = info.st_size
        if size > _SMALL:
            return ()
        fd = self.root.open_file(path, info.st_mode)
        try:
            head = self._header(path, b"0", info, size=size, fd=fd)
            content = os.read(fd, size)
        finally:
            os.close(fd)
        return (head + content + bytes(-size % BLOCK),) if len(content) == size else ()

    def _file(self, path: bytes, info: os.stat_result) -> Iterator[bytes]:
        left = info.st_size
        fd = self.root.open_file(path, info.st_mode)
        try:
            yield self._header(path, b"0", info, size=left, fd=fd)
            while left:
                # What a file grows by meanwhile, as a log of a running container does, is left for the next diff.
                block = os.read(fd, min(_READ, left))
                if not block:
                    raise DamagedLayer(f'"{os.fsdecode(path)}" became shorter while it was read')
                left -= len(block)
                yield block
        finally:
            os.close(fd)
        yield bytes(-info.st_size % BLOCK)

    def _header(
        self, name: bytes, kind: bytes, info: os.stat_result, *, size: int = 0, target: bytes = b"", fd: int = -1
    ) -> bytes:
        """Give the header of a file, which may be open as `fd`."""
        path = name.removesuffix(b"/")
        return header(
            name,
            kind,
            mode=info.st_mode & 0o7777,
            owner=self._owner(path, info),
            mtime=info.st_mtime_ns // 10**9,
            size=size,
            target=target,
            device=(os.major(info.st_rdev), os.minor(info.st_rdev)) if info.st_rdev else _NO_DEVICE,
            xattrs=self._xattrs(path, fd),
        )

    def _owner(self, path: bytes, info: os.stat_result) -> tuple[int, int]:
        if self._mappings is None:
            return info.st_uid, info.st_gid
        try:
            return self._mappings.to_container(info.st_uid, info.st_gid)
        except StorageError as error:
            raise StorageError(f'"{os.fsdecode(path)}": {error}') from error

    def _first_name(self, path: bytes, info: os.stat_result) -> bytes:
        if info.st_nlink == 1 or stat.S_ISDIR(info.st_mode):
            return path
        return self._first_names.setdefault((info.st_dev, info.st_ino), path)

    def _xattrs(self, path: bytes, fd: int) -> dict[bytes, bytes]:
        found = self.root.xattrs(path, _is_kept, fd=fd)
        if found and any(b"=" in key for key in found):
            raise StorageError(f'"{os.fsdecode(path)}": a tar cannot hold an attribute with "=" in its name')
        return found


def _is_kept(key: bytes) -> bool:
    return key in _XATTRS or (key.startswith(b"user.") and not key.startswith(b"user.overlay."))


def header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    owner: tuple[int, int],
    mtime: int,
    size: int = 0,
    target: bytes = b"",
    device: tuple[int, int] = _NO_DEVICE,
    xattrs: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """Give the header of an entry, with the PAX records in front of it that it needs."""
    uid, gid = owner
    records = {b"SCHILY.xattr." + key: value for key, value in xattrs.items()} if xattrs else {}
    split: tuple[bytes, bytes] | None = (b"", name)
    if len(name) > 100 or not name.isascii():
        split = _split(name)
        if split is None:
            records[b"path"] = name
    if target and (len(target) > 100 or not target.isascii()):
        records[b"linkpath"] = target
    if uid > _LARGEST_ID:
        records[b"uid"], uid = b"%d" % uid, 0
    if gid > _LARGEST_ID:
        records[b"gid"], gid = b"%d" % gid, 0
    if size > _LARGEST_SIZE:
        records[b"size"], size = b"%d" % size, 0
    if not 0 <= mtime <= _LARGEST_TIME:
        records[b"mtime"], mtime = b"%d" % mtime, 0
    if records and len(name) > 100:
        records[b"path"] = name
    prefix, base = split if split and not records else (b"", _cut(name))
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    devices = b"%07o\0%07o\0" % device if device != _NO_DEVICE else _ZERO_DEVICE
    block = _block(base, numbers, kind, target=_cut(target) if target else b"", devices=devices, prefix=prefix)
    return _extended(name, records) + block if records else block


def _extended(name: bytes, records: dict[bytes, bytes]) -> bytes:
    """Give the header of type `x` that holds the records, and them."""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    directory, _, base = name.rpartition(b"/")  # a directory's name ends in a slash, and so has no base
    own = b"/".join(filter(None, (directory, b"PaxHeaders.0", base)))
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0, 0, 0, len(data), 0)
    return _block(_ascii(own)[:100].rstrip(b"/"), numbers, b"x") + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """Give one PAX record, which begins with its own length."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d%s" % (length, rest)


def _block(
    name: bytes, numbers: bytes, kind: bytes, *, target: bytes = b"", devices: bytes = b"", prefix: bytes = b""
) -> bytes:
    """Put a header block together (POSIX.1-1988 ustar)."""
    head = name.ljust(100, b"\0") + numbers
    rest = kind, target, devices, prefix
    tail, tail_sum = _tails.get(rest) or _new_tail(*rest)
    # The low half of an Adler-32 that starts at 0 is the sum of all bytes, modulo 65521: more than these can come to.
    return b"%b%06o\0 %b" % (head, (adler32(head, 0) & 0xFFFF) + tail_sum + 8 * 0x20, tail)


def _new_tail(kind: bytes, target: bytes, devices: bytes, prefix: bytes) -> tuple[bytes, int]:
    """Give, and note, what follows the checksum, and its share of it."""
    tail = b"%b%bustar\x0000%b%b%b" % (
        kind,
        target.ljust(100, b"\0"),
        bytes(64),  # no names of users and groups
        devices.ljust(16, b"\0"),
        prefix.ljust(167, b"\0"),
    )
    if len(_tails) >= _MOST_TAILS:
        _tails.clear()
    found = _tails[kind, target, devices, prefix] = tail, sum(tail)
    return found


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Split a name into prefix and name as USTAR has them, or None if it does not fit."""
    if not name.isascii():
        return None
    if len(name) <= 100:
        return b"", name
    if len(name) > 256:
        return None
    # The last slash that leaves at most 155 bytes before it; a slash at the very end is no place to split.
    at = name.rfind(b"/", 0, min(156, len(name) - 1))
    if at <= 0 or len(name) - at - 1 > 100:
        return None
    return name[:at], name[at + 1 :]


def _cut(text: bytes) -> bytes:
    """Give what of a name or target is put into the header itself, for readers that know no PAX.

    Where the cut leaves a slash at the end, the slash goes: old readers take such a file for a directory.
    """
    if not text.isascii():
        text = _ascii(text)
    if len(text) <= 100:
        return text
    kept = text[:100].rstrip(b"/")
    return text[:100] if len(kept) == 100 else kept + b"\0" + text[len(kept) + 1 : 100]


def _ascii(text: bytes) -> bytes:
    return text if text.isascii() else bytes(byte for byte in text if byte < 0x80)
