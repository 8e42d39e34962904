"""One pass over a tar stream, with not a byte of it lost.

`TarReader` pulls blocks of bytes and gives one `Entry` after the other. The content of an entry is handed out as it
lies in those blocks; every other byte (headers, padding, end marks, what follows them) goes to `header_sink`, in order
and before `next()` returns. So what was sunk and what was handed out are, put together, exactly the stream.

What is understood is what Go's reader understands, as this decides what a layer's tree looks like: the old format,
ustar with its name prefix, the GNU format (long names, numbers in base 256), PAX records for one entry, sparse files in
all four forms (old GNU; GNU.sparse 0.0, 0.1, 1.0). Two things may surprise:

- A *global* PAX header is an entry of kind `g`, and its records are not applied to what follows.
- Links, directories and devices have no content, whatever their size field says.

Anything else is BadArchive, never another exception: a checksum that is wrong, numbers and records that cannot be read,
a sparse map that does not add up, more than 1 MiB of extended headers for one entry, a stream that ends inside
something. Memory is bounded by that megabyte and one block of the stream.

Speed: nearly all headers are plain, and repeat the owners and checksums of others. `_plain` reads those with a few
slices and two look-ups, and gives up at anything unusual, and `_with_records` the same behind an extended header with
times or attributes; `_parse` and what stands below it is the whole truth, and slower.
"""

from __future__ import annotations

from struct import Struct

from layerhold.archive import pax
from layerhold.archive.compress import adler32
from layerhold.archive.entry import Entry, clean
from layerhold.errors import BadArchive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Entry", "TarReader"]

BLOCK = 512
EXTENDED_LIMIT = 1 << 20  # bytes of extended headers (names, records, sparse maps) that one entry may have, as in Go.
_ZEROS = bytes(BLOCK)
_ADLER = 65521
_MAX_SIZE = (1 << 63) - 1
_CACHED = 4096

# Owner, digits of the size and what ends them, time, checksum, kind.
_PLAIN_FIELDS = Struct("100x 24s 11sc 12s 8s c 355x").unpack
_FIELD_ENDS = frozenset((b" ", b"\0"))
_PLAIN_KINDS = frozenset((b"0", b"5", b"1", b"2"))
_DEVICES = frozenset((b"3", b"4"))
_WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))


class TarReader:
    """Reads a tar stream that comes as `blocks`; `header_sink` gets every byte that is not content."""

    def __init__(
        self, blocks: Iterable[bytes], *, header_sink: Callable[[bytes | memoryview], object] | None = None
    ) -> None:
        self._blocks = iter(blocks)
        self._sink = header_sink or _drop
        self._block = b""
        self._view = memoryview(b"")
        self._at = 0  # the next byte of _block
        self._offset = 0  # of _block in the stream
        self._left = 0  # bytes of content not handed out yet
        self._padding = 0  # bytes that follow them
        self._next_at = 0  # where the entry's content begins, if extended headers came before it
        self._ended = False
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._checks: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}

    def next(self) -> Entry | None:
        """Give the next entry, passing over what is left of this one; None at the end mark, or the end of the stream.

        Raises BadArchive, and what the iterator of blocks raises.
        """
        start = self._at + self._left
        at = start + self._padding
        header = self._block[at : at + BLOCK]
        end = at + BLOCK
        if header[156:157] == pax.LOCAL:
            entry = self._with_records(header, end)
            end = self._next_at
        else:
            entry = _plain(header, self._checks, self._owners, self._times)
        if entry is None:
            return self._next_of_any_form()
        self._sink(self._block[start:end] if end > start + BLOCK else header)
        self._at = end
        size = entry.size
        self._left = size
        self._padding = -size & 511
        return entry

    def _with_records(self, header: bytes, at: int) -> Entry | None:
        """Read a plain header behind an extended one whose data stand at `at`, if there is nothing unusual in either.

        None for any other. `_next_at` is what follows both.
        """
        block = self._block
        size = _size_of_records(header, self._checks)
        plain = at + (size + 511 & ~511)
        self._next_at = plain + BLOCK
        records = pax.simple(block[at : at + size]) if size and plain + BLOCK <= len(block) else None
        if records is None:
            return None
        entry = _plain(block[plain : plain + BLOCK], self._checks, self._owners, self._times)
        if entry is not None:
            mtime, entry.atime, xattrs = records
            if mtime is not None:
                entry.mtime = mtime
            if xattrs:
                entry.xattrs = xattrs
        return entry

    def content(self) -> Iterator[memoryview]:
        """Give what is left of the entry's content, as stored, in pieces that may be kept. Ask once for each entry."""
        end = self._at + self._left
        if end <= len(self._block):
            piece = self._view[self._at : end]
            self._at = end
            self._left = 0
            return iter((piece,) if piece else ())
        return self._pieces()

    def drain(self) -> None:
        """Read to the end of the stream: all of it, less any content of the current entry, goes to the header sink."""
        self._pass_over()
        self._ended = True
        self._owners.clear()
        while self._at < len(self._block) or self._fill():
            self._sink(self._view[self._at :])
            self._at = len(self._block)

    def _fill(self) -> bool:
        """Get the next block that is not empty; False at the end of the stream."""
        for block in self._blocks:
            if block:
                self._offset += len(self._block)
                self._block = block
                self._view = memoryview(block)
                self._at = 0
                return True
        return False

    def _pieces(self) -> Iterator[memoryview]:
        while self._left:
            if self._at == len(self._block) and not self._fill():
                raise self._bad("unexpected end of the archive in the content of an entry")
            piece = self._view[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    def _pass_over(self) -> None:
        for _ in self._pieces():
            pass

    def _read(self, count: int) -> bytes:
        """Give `count` bytes, less only at the end of the stream, and pass them to the sink."""
        parts = []
        while count:
            if self._at == len(self._block) and not self._fill():
                break
            part = self._block[self._at : self._at + count]
            self._at += len(part)
            count -= len(part)
            parts.append(part)
        data = b"".join(parts)
        if data:
            self._sink(data)
        return data

    def _read_all(self, count: int, what: str) -> bytes:
        data = self._read(count)
        if len(data) < count:
            raise self._bad(f"unexpected end of the archive in {what}")
        return data

    def _bad(self, why: str) -> BadArchive:
        return BadArchive(why, offset=self._offset + self._at)

    def _next_of_any_form(self) -> Entry | None:
        if self._ended:
            return None
        self._pass_over()
        self._read_all(self._padding, "the padding of an entry")
        self._padding = 0
        try:
            entry = self._extended()
        except pax.Malformed as error:
            raise self._bad(str(error)) from None
        if entry is None:
            self._ended = True
            self._owners.clear()  # what follows the end is not to be taken for a plain header.
        return entry

    def _extended(self) -> Entry | None:
        """Read headers up to one that is an entry of its own, and put together what they say."""
        extras = pax.Extras(limit=EXTENDED_LIMIT)
        while (header := self._header()) is not None:
            entry = _parse(header, self._checks, self._owners, self._times)
            if entry.kind not in pax.EXTENSIONS:
                return self._begin(entry, header, extras)
            extras.count(entry.size)
            data = self._read_all(entry.size, "an extended header")
            self._read_all(-entry.size & 511, "an extended header")
            extras.take(entry.kind, data)
            if entry.kind == pax.GLOBAL:
                entry.size = entry.real_size = 0
                return entry
        if extras.used:
            raise self._bad("unexpected end of the archive after an extended header")
        return None

    def _header(self) -> bytes | None:
        """Give one header; None at the end of the stream, and after two blocks of zeros or the last one."""
        header = self._read(BLOCK)
        if header == _ZEROS:
            header = self._read(BLOCK)
            if header in (b"", _ZEROS):
                return None
            raise self._bad("invalid tar header: a lone block of zeros")
        if 0 < len(header) < BLOCK:
            raise self._bad("unexpected end of the archive in a header")
        return header or None

    def _begin(self, entry: Entry, header: bytes, extras: pax.Extras) -> Entry:
        old_type = entry.kind == b"\0"
        stored = extras.apply(entry)
        if old_type:
            entry.kind = b"5" if entry.name.endswith(b"/") else b"0"
        elif entry.kind == b"7":
            entry.kind = b"0"
        entry.path = clean(entry.name)
        if entry.kind in _WITHOUT_CONTENT:
            if stored.sparse:
                raise pax.Malformed("a sparse map for what is no file")
            entry.size = 0
        padding = -entry.size & 511
        if entry.kind == b"S":
            stored.read_old_gnu(entry, header, extras, lambda: self._read_all(BLOCK, "a sparse map"))
            entry.kind = b"0"
        elif stored.sparse:
            stored.read_pax(entry, extras, lambda: self._read_all(BLOCK, "a sparse map"))
        else:
            entry.real_size = entry.size
        self._left = entry.size
        self._padding = padding
        return entry


def _drop(_data: bytes | memoryview) -> None:
    pass


def _plain(
    header: bytes, checks: dict[bytes, int], owners: dict[bytes, tuple[int, int, int]], times: dict[bytes, int]
) -> Entry | None:
    """Read a header that has nothing unusual in it, and an owner seen before; None for any other."""
    if len(header) < BLOCK:
        return None
    owner_field, digits, end, time_field, check, kind = _PLAIN_FIELDS(header)
    owner = owners.get(owner_field)
    mtime = times.get(time_field)
    if mtime is None:
        mtime = _new_time(time_field, times)
    if (
        owner is None
        or mtime is None
        or kind not in _PLAIN_KINDS
        or end not in _FIELD_ENDS
        or not digits.isdigit()
        # The low half of an Adler-32 that starts at 0 is the sum of all bytes, modulo 65521.
        or adler32(header, 0) & 0xFFFF != (checks.get(check) or _new_check(check, checks))
    ):
        return None
    try:
        size = int(digits, 8) if kind == b"0" else 0
    except ValueError:
        return None
    zero = header.find(0)
    name = header[: zero if zero < 100 else 100]
    if header[345]:
        if header[257:265] != b"ustar\x0000" or any(header[500:512]):
            return None
        name = _until_zero(header[345:500]) + b"/" + name
    entry = Entry(name, clean(name), kind, owner, size, mtime)
    if header[157]:
        entry.linkname = _until_zero(header[157:257])
    return entry


def _new_time(field: bytes, times: dict[bytes, int]) -> int | None:
    """Read a time that is eleven octal digits, and note it; None for any other."""
    digits = field[:11]
    if not digits.isdigit() or field[11:] not in _FIELD_ENDS:
        return None
    try:
        seconds = int(digits, 8)
    except ValueError:
        return None
    if len(times) >= _CACHED:
        times.clear()
    mtime = times[field] = seconds * 1000000000
    return mtime


def _new_check(field: bytes, checks: dict[bytes, int]) -> int:
    """Give, and note, what the Adler-32 of a header with this checksum is; -1 for a checksum in an unusual form."""
    if not field[:6].isdigit() or field[6:] != b"\0 ":
        return -1
    try:
        stored = int(field[:6], 8)
    except ValueError:
        return -1
    if len(checks) >= _CACHED:
        checks.clear()
    expected = checks[field] = (stored - 256 + sum(field)) % _ADLER
    return expected


def _size_of_records(header: bytes, checks: dict[bytes, int]) -> int:
    """Give how many bytes of records follow an extended header; 0 if that is unusual."""
    digits = header[124:135]
    if not digits.isdigit() or adler32(header, 0) & 0xFFFF != (
        checks.get(header[148:156]) or _new_check(header[148:156], checks)
    ):
        return 0
    try:
        size = int(digits, 8)
    except ValueError:
        return 0
    return size if size <= EXTENDED_LIMIT else 0


def _parse(
    header: bytes, checks: dict[bytes, int], owners: dict[bytes, tuple[int, int, int]], times: dict[bytes, int]
) -> Entry:
    """Read any header, and note owner, checksum and time for `_plain`."""
    _verify(header, checks)
    field = header[100:124]
    owner = owners.get(field)
    if owner is None:
        if len(owners) >= _CACHED:
            owners.clear()
        mode = _number(header[100:108], "mode") & 0o177777
        owner = owners[field] = (
            mode,
            pax.owner(_number(header[108:116], "uid")),
            pax.owner(_number(header[116:124], "gid")),
        )
    size = _number(header[124:136], "size")
    if size < 0:
        raise pax.Malformed("invalid tar header: negative size")
    name = _until_zero(header[:100])
    magic = header[257:265]
    if header[345] and magic.startswith(b"ustar\0"):
        prefix_end = 476 if header[508:512] == b"tar\0" else 500
        name = _until_zero(header[345:prefix_end]) + b"/" + name
    if len(times) >= _CACHED:
        times.clear()
    mtime = times[header[136:148]] = _number(header[136:148], "mtime") * 1000000000
    entry = Entry(name, b"", header[156:157], owner, size, mtime)
    entry.linkname = _until_zero(header[157:257])
    if entry.kind in _DEVICES and magic.startswith(b"ustar"):
        entry.major = pax.unsigned32(_number(header[329:337], "device"), "device")
        entry.minor = pax.unsigned32(_number(header[337:345], "device"), "device")
    return entry


def _verify(header: bytes, checks: dict[bytes, int]) -> None:
    field = header[148:156]
    stored = _number(field, "checksum")
    blank = header[:148] + b"        " + header[156:]
    total = sum(blank)
    if stored != total and stored != total - 256 * sum(
        byte > 127 for byte in blank
    ):  # some programs added signed bytes
        raise pax.Malformed("invalid tar header: wrong checksum")
    if len(checks) >= _CACHED:
        checks.clear()
    checks[field] = (stored - 256 + sum(field)) % _ADLER


def _number(field: bytes, what: str) -> int:
    """Read a number: octal digits between blanks, or with the top bit set, base 256 with a sign."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        if value >> (bits - 1):
            value -= 1 << bits
        if not -_MAX_SIZE <= value <= _MAX_SIZE:
            raise pax.Malformed(f"invalid tar header: {what} out of range")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if digits.strip(b"01234567"):
        raise pax.Malformed(f"invalid tar header: {what} is no number")
    return int(digits, 8) if digits else 0


def _until_zero(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
