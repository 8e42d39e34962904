"""Owner, mode and kind of a file that are written in an attribute, since the file itself may not have them.

With `force_mask` all files are the user's own and have one mode; what they are meant to be stands beside them:

    user.containers.override_stat      <uid>:<gid>:<mode, 4 octal digits>:<kind>    written by Go's library, and here
    user.fuseoverlayfs.override_stat   <uid>:<gid>:<st_mode, octal>                 written by fuse-overlayfs 1.10

Kinds are `dir`, `file`, `symlink`, `pipe`, `socket`, `block-<major>-<minor>` and `char-<major>-<minor>`; where none is
named it is that of the file. The second is newer than the first where a file has both: fuse-overlayfs copies the first
up, and then changes its own alone. Newer ones (1.13) write the first, with the value of the second. Symbolic links can
have neither.
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from layerhold.archive.entry import Entry
    from layerhold.archive.extract import Extractor
    from layerhold.ids.mappings import IdMappings

KEY = b"user.containers.override_stat"
KEYS = (b"user.fuseoverlayfs.override_stat", KEY)

_KINDS = {
    b"dir": stat.S_IFDIR,
    b"file": stat.S_IFREG,
    b"symlink": stat.S_IFLNK,
    b"pipe": stat.S_IFIFO,
    b"socket": stat.S_IFSOCK,
    b"block": stat.S_IFBLK,
    b"char": stat.S_IFCHR,
}
_WORDS = {kind: word for word, kind in _KINDS.items()}
_OF_ENTRIES = {b"0": stat.S_IFREG, b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"5": stat.S_IFDIR, b"6": stat.S_IFIFO}
_LARGEST_ID = (1 << 32) - 2
_LARGEST_NUMBER = (1 << 31) - 1


class Override(Value):
    """What a file is meant to be. `kind` is one of `stat.S_IFMT`, or 0: that of the file."""

    uid: int
    gid: int
    mode: int
    kind: int = 0
    major: int = 0
    minor: int = 0

    def text(self) -> bytes:
        """Give the value of the attribute."""
        word = _WORDS.get(self.kind, b"")
        if self.kind in (stat.S_IFBLK, stat.S_IFCHR):
            word += b"-%d-%d" % (self.major, self.minor)
        return b"%d:%d:%04o" % (self.uid, self.gid, self.mode) + (b":" + word if word else b"")

    def over(self, info: os.stat_result) -> os.stat_result:
        """Give what is known of a file, with this in the place of what is on the disk."""
        kind = self.kind or stat.S_IFMT(info.st_mode)
        device = os.makedev(self.major, self.minor) if kind in (stat.S_IFBLK, stat.S_IFCHR) and self.kind else None
        times = {
            "st_atime_ns": info.st_atime_ns,
            "st_mtime_ns": info.st_mtime_ns,
            "st_ctime_ns": info.st_ctime_ns,
            "st_blocks": info.st_blocks,
            "st_blksize": info.st_blksize,
            "st_rdev": info.st_rdev if device is None else device,
        }
        return os.stat_result((kind | self.mode, *info[1:4], self.uid, self.gid, *info[6:]), times)


def parse(value: bytes) -> Override | None:
    """Read the value of either attribute; None if it is malformed."""
    fields = value.split(b":")
    if not 3 <= len(fields) <= 4:
        return None
    uid, gid, mode = _number(fields[0]), _number(fields[1]), _number(fields[2], 8)
    if uid is None or gid is None or mode is None or max(uid, gid) > _LARGEST_ID or mode > 0o177777:
        return None
    if len(fields) == 3:
        return Override(uid=uid, gid=gid, mode=stat.S_IMODE(mode))
    word, *numbers = fields[3].split(b"-")
    named = _KINDS.get(word)
    if named is None or len(numbers) != (2 if named in (stat.S_IFBLK, stat.S_IFCHR) else 0):
        return None
    device = [number for number in map(_number, numbers) if number is not None and number <= _LARGEST_NUMBER]
    if len(device) != len(numbers):
        return None
    major, minor = device or (0, 0)
    return Override(uid=uid, gid=gid, mode=stat.S_IMODE(mode), kind=named, major=major, minor=minor)


def is_overridden(path: str) -> bool:
    """Tell whether something is written beside the directory `path`, and so maybe beside all that is in it."""
    return _written(path) is not None


def stat_of(path: str) -> os.stat_result:
    """Give what the directory `path` is meant to be."""
    written = _written(path)
    info = os.stat(path)
    return info if written is None else written.over(info)


def chosen(found: Mapping[bytes, bytes]) -> Override | None:
    """Give what the attributes of a file say."""
    for key in KEYS:
        if key in found and (parsed := parse(found[key])) is not None:
            return parsed
    return None


def _written(path: str) -> Override | None:
    try:
        names = os.listxattr(path)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return None
    return chosen({key: os.getxattr(path, key) for key in KEYS if os.fsdecode(key) in names})


def _number(digits: bytes, base: int = 10) -> int | None:
    allowed = b"01234567" if base == 8 else b"0123456789"
    return int(digits, base) if 0 < len(digits) <= 10 and not digits.strip(allowed) else None


class Masked:
    """Brings entries in with one mode, as files of the user's own; what they are meant to be is written beside them.

    Devices and pipes become empty files, so anybody may make them. Links, which can have no attributes, get their owner
    if root makes them.
    """

    def __init__(self, extractor: Extractor, mask: int, mappings: IdMappings | None) -> None:
        self._extractor = extractor
        self._mask = mask
        self._mappings = mappings
        self._own = os.geteuid(), os.getegid()

    def add(self, entry: Entry, content: Iterator[memoryview]) -> int | None:
        """Unpack one entry, as `Extractor.add` does."""
        return self._extractor.add(self._masked(entry), content)

    def keeps(self, entry: Entry) -> bool:
        """Tell what `Extractor.keeps` tells."""
        return self._extractor.keeps(entry)

    def _masked(self, entry: Entry) -> Entry:
        from layerhold.archive.entry import Entry

        kind = _OF_ENTRIES.get(entry.kind)
        is_node = entry.kind in (b"3", b"4", b"6")
        owner = (self._mask, *(self._own if entry.kind != b"2" or self._own[0] else self._meant_owner(entry)))
        plain = Entry(entry.name, entry.path, b"0" if is_node else entry.kind, owner, entry.size, entry.mtime)
        plain.atime, plain.linkname, plain.sparse = entry.atime, entry.linkname, entry.sparse
        plain.real_size = 0 if is_node else entry.real_size
        plain.xattrs = entry.xattrs
        if kind is not None:
            uid, gid = self._meant_owner(entry)
            meant = Override(
                uid=uid, gid=gid, mode=entry.mode & 0o7777, kind=kind, major=entry.major, minor=entry.minor
            )
            plain.xattrs = {**entry.xattrs, KEY: meant.text()}
        return plain

    def _meant_owner(self, entry: Entry) -> tuple[int, int]:
        owner = entry.uid, entry.gid
        return owner if self._mappings is None else self._mappings.to_host(*owner)
