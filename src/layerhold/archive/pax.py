"""What stands before a tar header proper: PAX records, GNU long names, and the maps of sparse files.

`Extras` collects the extended headers of one entry and lays them over its own header. Only records that mean something
to us are kept, so memory is bounded by the limit on the bytes of all of them. Whatever cannot be read is `Malformed`;
the reader adds where in the stream that was.

A sparse map is a list of stretches: offset in the file, length. They must stand in order, not overlap, end within the
file, and add up to the content that is stored. The file's own size may be anything up to 2^63 - 1: what is not stored
becomes a hole and costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from layerhold.archive.entry import Entry

__all__ = ["EXTENSIONS", "GLOBAL", "LOCAL", "Extras", "Malformed", "Stored", "owner", "simple", "unsigned32"]

LOCAL, GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
EXTENSIONS = frozenset((LOCAL, GLOBAL, LONG_NAME, LONG_LINK))
_XATTR = b"SCHILY.xattr."
_SPARSE = b"GNU.sparse."
_TEXTS = frozenset((b"path", b"linkpath", b"uname", b"gname"))
_KEPT = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime"))
_XATTR_LENGTH = len(_XATTR)
_LINE_END = ord("\n")
_SECONDS = 12  # digits of a time that is nothing unusual
_MAX_INT = (1 << 63) - 1


class Malformed(Exception):
    """An extended header, or a number, that cannot be read; the text says which."""


def owner(value: int) -> int:
    """Take a number as a uid or gid; negative ones stand for those near 2^32, as the kernel sees them."""
    return value & 0xFFFFFFFF if -(1 << 31) <= value < 0 else unsigned32(value, "owner")


def unsigned32(value: int, what: str) -> int:
    """Take a number of 32 bits."""
    if not 0 <= value < 1 << 32:
        raise Malformed(f"invalid tar header: {what} out of range")
    return value


Simple = tuple[int | None, int | None, dict[bytes, bytes]]


def simple(data: bytes) -> Simple | None:
    """Read records of which all are times or attributes: mtime, atime, attributes. None if there is anything else.

    This is `Extras` in short, for what nearly all extended headers say; what it does not take, that one judges.
    """
    mtime = atime = None
    xattrs = {}
    at, end = 0, len(data)
    while at < end:
        space = data.find(b" ", at, at + 6)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            return None
        at += int(digits)
        if not space < at <= end or data[at - 1] != _LINE_END:
            return None
        if data.startswith(b"mtime=", space + 1):
            mtime = _simple_time(data[space + 7 : at - 1])
            continue
        key, equals, value = data[space + 1 : at - 1].partition(b"=")
        if not equals or not value:
            return None
        if key == b"atime":
            atime = _simple_time(value)
        elif key.startswith(_XATTR) and b"\0" not in key:
            xattrs[key[_XATTR_LENGTH:]] = value
        elif key != b"ctime":
            return None
    if -1 in (mtime, atime):
        return None
    return mtime, atime, xattrs


def _simple_time(text: bytes) -> int:
    """Read a time that is seconds, or seconds and a fraction of at most nine digits; -1 for any other."""
    seconds, _, fraction = text.partition(b".")
    if not seconds.isdigit() or len(seconds) > _SECONDS or len(fraction) > 9:
        return -1
    if not fraction:
        return int(seconds) * 1000000000
    return int(seconds + fraction.ljust(9, b"0")) if fraction.isdigit() else -1


class Extras:
    """The extended headers of one entry, of `limit` bytes at most."""

    def __init__(self, *, limit: int) -> None:
        self.used = False
        self._left = limit
        self._records: dict[bytes, bytes] = {}
        self._map: list[bytes] = []
        self._name = b""
        self._link = b""

    def count(self, size: int) -> None:
        """Take `size` more bytes off the limit."""
        self._left -= size
        if self._left < 0:
            raise Malformed("header field too long")

    def take(self, kind: bytes, data: bytes) -> None:
        """Note the data of one extended header. The records of a later `x` header replace those of one before it."""
        self.used = True
        if kind == LONG_NAME:
            self._name = data.partition(b"\0")[0]
        elif kind == LONG_LINK:
            self._link = data.partition(b"\0")[0]
        else:
            self._records, self._map = {}, []
            for key, value in _records(data):
                self._note(key, value)

    def _note(self, key: bytes, value: bytes) -> None:
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if key.endswith(b"offset") is bool(len(self._map) % 2):
                raise Malformed("invalid sparse map: offsets and sizes do not alternate")
            self._map.append(value)
        elif key in _KEPT or key.startswith((_XATTR, _SPARSE)):
            self._records[key] = value

    def apply(self, entry: Entry) -> Stored:
        """Lay what was noted over `entry`, and tell how its content is stored.

        Empty values count as not given, but for those of attributes, which may be empty (as Go has it).
        """
        records = {key: value for key, value in self._records.items() if value or key.startswith(_XATTR)}
        entry.name = self._name or records.get(b"path", entry.name)
        entry.linkname = self._link or records.get(b"linkpath", entry.linkname)
        if b"size" in records:
            entry.size = _integer(records[b"size"], "size")
        if b"uid" in records:
            entry.uid = owner(_integer(records[b"uid"], "uid", signed=True))
        if b"gid" in records:
            entry.gid = owner(_integer(records[b"gid"], "gid", signed=True))
        if b"mtime" in records:
            entry.mtime = _time(records[b"mtime"])
        if b"atime" in records:
            entry.atime = _time(records[b"atime"])
        xattrs = {key[len(_XATTR) :]: value for key, value in records.items() if key.startswith(_XATTR)}
        if xattrs:
            entry.xattrs = xattrs
        return Stored(entry, records, self._map)


class Stored:
    """How the content of an entry is stored: whole, or (`sparse`) with a map."""

    def __init__(self, entry: Entry, records: dict[bytes, bytes], pairs: list[bytes]) -> None:
        version = records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b"")
        self._map_in_content = version == (b"1", b"0")
        self._numbers = pairs or (records[b"GNU.sparse.map"].split(b",") if b"GNU.sparse.map" in records else [])
        self.sparse = (
            self._map_in_content
            or version in ((b"0", b"0"), (b"0", b"1"))
            or (version == (b"", b"") and bool(self._numbers))
        )
        if not self.sparse:
            return
        entry.name = records.get(b"GNU.sparse.name", entry.name)
        size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        self._real_size = entry.size if size is None else _integer(size, "size of a sparse file")
        self._count = records.get(b"GNU.sparse.numblocks", b"")

    def read_pax(self, entry: Entry, extras: Extras, block: Callable[[], bytes]) -> None:
        """Set `entry` from a map in records, or in the content, of which `block` gives the next 512 bytes."""
        if self._map_in_content:
            numbers, taken = _map_in_content(entry.size, extras, block)
            entry.size -= taken
        else:
            numbers = [_integer(number, "sparse map") for number in self._numbers]
            if len(numbers) % 2 or (self._count and _integer(self._count, "sparse map") * 2 != len(numbers)):
                raise Malformed("invalid sparse map: wrong number of stretches")
        _set(entry, list(zip(numbers[::2], numbers[1::2], strict=True)), self._real_size)

    def read_old_gnu(self, entry: Entry, header: bytes, extras: Extras, block: Callable[[], bytes]) -> None:
        """Set `entry` from the map in an old GNU header, and in the blocks that go on with it."""
        if self.sparse or header[257:265] != b"ustar  \0":
            raise Malformed("invalid sparse map: not in a GNU header")
        stretches = list(_old_gnu_stretches(header[386:482]))
        more = header[482]
        while more:
            extras.count(512)
            data = block()
            stretches += _old_gnu_stretches(data[:504])
            more = data[504]
        _set(entry, stretches, _gnu_number(header[483:495]))


def _set(entry: Entry, stretches: list[tuple[int, int]], real_size: int) -> None:
    end = 0
    stored = 0
    for offset, length in stretches:
        if offset < end:
            raise Malformed("invalid sparse map: stretches out of order")
        end = offset + length
        stored += length
    if end > real_size or stored != entry.size:
        raise Malformed("invalid sparse map: it does not add up")
    entry.real_size = real_size
    entry.sparse = [stretch for stretch in stretches if stretch[1]]


def _old_gnu_stretches(data: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, len(data) - 23, 24):
        if not data[at]:
            return
        yield _gnu_number(data[at : at + 12]), _gnu_number(data[at + 12 : at + 24])


def _gnu_number(field: bytes) -> int:
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if digits.strip(b"01234567"):
            raise Malformed("invalid sparse map: not a number")
        value = int(digits, 8) if digits else 0
    if value > _MAX_INT:
        raise Malformed("invalid sparse map: out of range")
    return value


def _map_in_content(size: int, extras: Extras, block: Callable[[], bytes]) -> tuple[list[int], int]:
    """Read lines of a number each: how many stretches, offset and length of each. Give those, and bytes taken."""
    numbers: list[int] = []
    wanted = 1
    rest = b""
    taken = 0
    while len(numbers) < wanted:
        extras.count(512)
        taken += 512
        if taken > size:
            raise Malformed("invalid sparse map: longer than the content")
        *lines, rest = (rest + block()).split(b"\n")
        if len(rest) > 512:
            raise Malformed("invalid sparse map: not a number")
        if not numbers and lines:
            wanted = 1 + 2 * _integer(lines[0], "sparse map")
        numbers += [_integer(line, "sparse map") for line in lines[: wanted - len(numbers)]]
    return numbers[1:], taken


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Take `<length> <key>=<value>\\n` records apart."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 10)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        if not at < space < end <= len(data) or data[end - 1] != 10:
            raise Malformed("invalid PAX record: wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key or b"\0" in (value if key in _TEXTS else key):
            raise Malformed("invalid PAX record")
        yield key, value
        at = end


def _integer(digits: bytes, what: str, *, signed: bool = False) -> int:
    """Read a decimal number of at most 63 bits."""
    negative = signed and digits.startswith(b"-")
    unsigned = digits[1:] if negative else digits
    if not unsigned.isdigit() or len(unsigned) > 32 or int(unsigned) > _MAX_INT:
        raise Malformed(f"invalid {what}")
    return -int(unsigned) if negative else int(unsigned)


def _time(text: bytes) -> int:
    """Read seconds with a fraction, cut after nanoseconds."""
    seconds, _, fraction = text.partition(b".")
    if fraction and not fraction.isdigit():
        raise Malformed("invalid time")
    whole = _integer(seconds, "time", signed=True) * 1000000000 if seconds not in (b"", b"-") else 0
    part = int(fraction[:9].ljust(9, b"0"))
    return whole - part if text.startswith(b"-") else whole + part
