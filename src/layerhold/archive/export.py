"""A tree, or what changed in it, as the bytes of a tar.

Headers as the Go library writes them since 1.57: USTAR where everything fits, with PAX records in front only for what
does not (long or non-ASCII names, large numbers, attributes); permission and setid bits as the mode, no names of users,
times cut to whole seconds. A file whose inode was seen before is a hard link to the first name. Sockets are left out.
Two zero blocks end it.

What is gone becomes a whiteout entry. In an overlay layer it is a 0/0 device; the whiteout gets its owner and time. An
opaque directory that hides something is followed by its `.wh..wh..opq`. Unlike Go's programs, a file that cannot be
read is an error and not left out.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import ExitStack

from layerhold.archive.changes import DELETE, hides_below, walk
from layerhold.archive.whiteouts import OVERLAY_MARKS, is_hidden, opaque_key, opaque_of, whiteout_of
from layerhold.errors import DamagedLayer
from layerhold.tree.root import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from layerhold.archive.changes import Change

BLOCK = 512
_READ = 1 << 20
_END = bytes(2 * BLOCK)
_KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_XATTRS = (b"security.capability", b"security.ima")
_LARGEST_ID, _LARGEST_SIZE, _LARGEST_TIME = 0o7777777, 0o77777777777, 0o77777777777


def tar(
    path: str,
    *,
    changes: Iterable[Change] | None,
    deletions: str,
    lowers: Sequence[str] | None,
    xattr_prefix: str = "trusted.overlay.",
) -> Iterator[bytes]:
    """Write the tree at `path` as a tar, or only `changes` of it. Raises OSError, DamagedLayer (a file shrinks)."""
    with ExitStack() as stack:
        root = stack.enter_context(Root(path))
        writer = _Writer(root)
        if changes is not None:
            yield from _changed(writer, changes)
        elif deletions == OVERLAY_MARKS:
            below = [stack.enter_context(Root(lower)) for lower in lowers or ()]
            yield from _layer(writer, hides_below(root, below, opaque_key(xattr_prefix)))
        else:
            for name in walk(root):
                yield from writer.file(name.path, root.lstat(name.path))
        yield _END


def _changed(writer: _Writer, changes: Iterable[Change]) -> Iterator[bytes]:
    for change in changes:
        path = change.path[1:]
        if change.kind == DELETE:
            yield writer.mark(whiteout_of(path), mtime=int(time.time()))
        else:
            yield from writer.file(path, writer.root.lstat(path))


def _layer(writer: _Writer, hides: Callable[[bytes], bool]) -> Iterator[bytes]:
    for name in walk(writer.root):
        info = writer.root.lstat(name.path)
        if name.is_special and is_hidden(info):
            owner = (info.st_uid, info.st_gid)
            yield writer.mark(whiteout_of(name.path), owner=owner, mtime=info.st_mtime_ns // 10**9)
            continue
        yield from writer.file(name.path, info)
        if name.is_directory and hides(name.path):
            mode, owner = stat.S_IMODE(info.st_mode) & 0o777, (info.st_uid, info.st_gid)
            yield writer.mark(opaque_of(name.path), owner=owner, mode=mode)


class _Writer:
    """Entries for the files below `root`."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._first_names: dict[tuple[int, int], bytes] = {}

    def mark(self, name: bytes, *, owner: tuple[int, int] = (0, 0), mode: int = 0, mtime: int = 0) -> bytes:
        """Give a whiteout's entry."""
        return header(name, b"0", mode=mode, owner=owner, mtime=mtime)

    def file(self, path: bytes, info: os.stat_result) -> Iterator[bytes]:
        """Give the entry of what is at `path`: its header, then its content."""
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:  # a socket: there is no entry for it
            return
        first = self._first_name(path, info)
        target = b""
        size = 0
        if first != path:
            kind, target = b"1", first
        elif kind == b"2":
            with self.root.parent(path) as (at, name):
                target = os.readlink(name, dir_fd=at)
        elif kind == b"0":
            size = info.st_size
        yield header(
            path + b"/" if kind == b"5" else path,
            kind,
            mode=stat.S_IMODE(info.st_mode),
            owner=(info.st_uid, info.st_gid),
            mtime=info.st_mtime_ns // 10**9,
            size=size,
            target=target,
            device=(os.major(info.st_rdev), os.minor(info.st_rdev)) if kind in (b"3", b"4") else (0, 0),
            xattrs={} if kind == b"2" else self._xattrs(path),
        )
        if size:
            yield from self._content(path, size)

    def _first_name(self, path: bytes, info: os.stat_result) -> bytes:
        if info.st_nlink == 1 or stat.S_ISDIR(info.st_mode):
            return path
        return self._first_names.setdefault((info.st_dev, info.st_ino), path)

    def _xattrs(self, path: bytes) -> dict[bytes, bytes]:
        return {
            key: value
            for key, value in self.root.xattrs(path).items()
            if key in _XATTRS or (key.startswith(b"user.") and not key.startswith(b"user.overlay."))
        }

    def _content(self, path: bytes, size: int) -> Iterator[bytes]:
        fd = self.root.open_file(path)
        try:
            left = size
            while left:
                block = os.read(fd, min(_READ, left))
                if not block:
                    raise DamagedLayer(f'"{os.fsdecode(path)}" became shorter while it was read')
                left -= len(block)
                yield block
        finally:
            os.close(fd)
        yield bytes(-size % BLOCK)


def header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    owner: tuple[int, int],
    mtime: int,
    size: int = 0,
    target: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: dict[bytes, bytes] | None = None,
) -> bytes:
    """Give the header of an entry, with the PAX records in front of it that it needs."""
    records = {b"SCHILY.xattr." + key: value for key, value in (xattrs or {}).items()}
    split = _split(name)
    if split is None:
        records[b"path"] = name
    if len(target) > 100 or not target.isascii():
        records[b"linkpath"] = target
    for key, value, most in (
        (b"uid", owner[0], _LARGEST_ID),
        (b"gid", owner[1], _LARGEST_ID),
        (b"size", size, _LARGEST_SIZE),
        (b"mtime", mtime, _LARGEST_TIME),
    ):
        if not 0 <= value <= most:
            records[key] = b"%d" % value
    prefix, base = split if split and not records else (b"", _ascii(name)[:100])
    if split is not None and records and len(name) > 100:
        records[b"path"] = name
    block = _block(
        base,
        kind,
        numbers=(mode, *(value if value <= _LARGEST_ID else 0 for value in owner)),
        size=size if size <= _LARGEST_SIZE else 0,
        mtime=mtime if 0 <= mtime <= _LARGEST_TIME else 0,
        target=_ascii(target)[:100],
        device=device,
        prefix=prefix,
    )
    return _extended(name, records) + block if records else block


def _extended(name: bytes, records: dict[bytes, bytes]) -> bytes:
    """Give the header of type `x` that holds the records, and them."""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    directory, _, base = name.rpartition(b"/")  # a directory's name ends in a slash, and so has no base
    own = b"/".join(filter(None, (directory, b"PaxHeaders.0", base)))
    block = _block(_ascii(own)[:100].rstrip(b"/"), b"x", size=len(data), device=None)
    return block + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """Give one PAX record, which begins with its own length."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d%s" % (length, rest)


def _block(
    name: bytes,
    kind: bytes,
    *,
    numbers: tuple[int, ...] = (0, 0, 0),
    size: int = 0,
    mtime: int = 0,
    target: bytes = b"",
    device: tuple[int, int] | None = (0, 0),
    prefix: bytes = b"",
) -> bytes:
    """Put a header block together (POSIX.1-1988 ustar)."""
    devices = b"".join(b"%07o\0" % number for number in device) if device is not None else bytes(16)
    head = name.ljust(100, b"\0") + b"".join(b"%07o\0" % number for number in numbers)
    head += b"%011o\0%011o\0" % (size, mtime)
    tail = kind + target.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + devices + prefix.ljust(155, b"\0") + bytes(12)
    checksum = sum(head) + sum(tail) + 8 * 0x20
    return head + b"%06o\0 " % checksum + tail


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


def _ascii(text: bytes) -> bytes:
    """Drop what is not ASCII, for readers that know no PAX."""
    return text if text.isascii() else bytes(byte for byte in text if byte < 0x80)
