"""tar-split files: what of a tar stream is not the content of files, so that the files and it give the tar again.

The file is gzip over lines of JSON, each with its number (`position`) at the end:

    {"type":2,"payload":"<base64 of raw bytes>","position":0}
    {"type":1,"name":"bin/sh","size":1234,"payload":"<base64 of the CRC-64>","position":1}

A *segment* (2) holds raw bytes: headers, padding, end marks. A *file* line (1) follows the segment with the entry's
headers; where it has a size, the content of that file comes next, otherwise nothing, and its payload is null. Names
that are not UTF-8 stand as `name_raw` in base64. Content that no file of the layer could give back in the same form may
stand in a segment: then the file line has no size.

`SplitWriter` makes the lines, `split_file` a file of them, `assemble` puts a tar together. The last trusts nothing:
lines in order and of bounded length, known types, ordinary files of the size and checksum that were noted. A file that
lacks its last lines shows nothing of that: the caller compares size and digest of the whole with the layer's record.
"""

from __future__ import annotations

import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from errno import EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EXDEV
from stat import S_ISREG

from layerhold.archive.behind import Behind
from layerhold.archive.compress import gzip_compressor, unwrap
from layerhold.blocks import contextmanager
from layerhold.digests import crc64
from layerhold.errors import BadArchive, DamagedLayer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SplitWriter", "assemble", "split_file"]

_SEGMENT_LIMIT = 1 << 20
_LINE_LIMIT = 16 << 20  # others write segments of up to 8 MiB, which base64 makes 11.
_READ = 256 << 10  # with more, the memory goes back to the kernel each time, and comes anew page by page
_TOGETHER = 128 << 10  # small pieces are handed on together, as each piece costs the same further on.
_PACK = 1 << 20  # of lines that are compressed together
_PACKS_BEHIND = 2
_PACKED = 64 << 10
_NOT_THERE = frozenset((EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EXDEV))  # what `open_file` says of a tree that changed.

# Characters of a name that stand for themselves in JSON, as Go writes it. Go also writes <, >, & and two line ends of
# Unicode as escapes.
_AS_THEY_ARE = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\<>&')
_ESCAPES = str.maketrans(
    {code: f"\\u{code:04x}" for code in (*range(0x20), *b"<>&", 0x2028, 0x2029)}
    | {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
)


class SplitWriter:
    """Takes a tar stream's raw bytes and files in their order, and gives lines, many at once, to `write`."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._position = 0
        self._raw: list[bytes | memoryview] = []
        self._raw_size = 0
        self._lines: list[bytes] = []
        self._lines_size = 0

    def segment(self, data: bytes | memoryview) -> None:
        """Take raw bytes; those between two files become one segment, or several of at most 1 MiB."""
        self._raw.append(data)
        self._raw_size += len(data)
        if self._raw_size >= _SEGMENT_LIMIT:
            self._flush(at_least=_SEGMENT_LIMIT)

    def file(self, name: bytes, size: int, crc: int | None) -> None:
        """Take a file whose content, with that checksum, followed the raw bytes so far; size 0 for what has none."""
        if self._raw_size:
            self._flush(at_least=1)
        plain = name and not name.translate(None, _AS_THEY_ARE)
        named = b'"name":"%b",' % name if plain else _named(name)
        if size:
            if crc is None:
                raise ValueError("a file with content has a checksum")
            payload = b2a_base64(crc.to_bytes(8, "big"), newline=False)
            line = b'{"type":1,%b"size":%d,"payload":"%b","position":%d}\n' % (named, size, payload, self._position)
        else:
            line = b'{"type":1,%b"payload":null,"position":%d}\n' % (named, self._position)
        self._position += 1
        self._lines.append(line)
        self._lines_size += len(line)
        if self._lines_size >= _PACK:
            self._write_lines()

    def close(self) -> None:
        """Write what was still to come."""
        if self._raw_size:
            self._flush(at_least=1)
        self._write_lines()

    def _flush(self, *, at_least: int) -> None:
        """Make segments until less than `at_least` raw bytes are left."""
        raw = self._raw
        data: bytes | memoryview = raw[0] if len(raw) == 1 else b"".join(raw)
        start = 0
        while len(data) - start >= at_least:
            payload = b2a_base64(data[start : start + _SEGMENT_LIMIT], newline=False)
            # Not put together: joining the lines copies the payload anyway.
            self._lines += (b'{"type":2,"payload":"', payload, b'","position":%d}\n' % self._position)
            self._lines_size += len(payload)
            self._position += 1
            start += _SEGMENT_LIMIT
        if start < len(data):
            self._raw = [data[start:]]
            self._raw_size = len(data) - start
        else:
            raw.clear()
            self._raw_size = 0
        if self._lines_size >= _PACK:
            self._write_lines()

    def _write_lines(self) -> None:
        if self._lines:
            self._write(b"".join(self._lines))
            self._lines.clear()
            self._lines_size = 0


@contextmanager
def split_file(path: str) -> Iterator[SplitWriter]:
    """Make the tar-split file `path`, which must not be there; complete when the block ends well, not yet synced.

    The lines are compressed and written in a thread.
    """
    with open(path, "xb", buffering=0, opener=_private) as file:
        compress, flush = gzip_compressor(level=1)

        def pack(lines: bytes) -> None:
            _write_all(file.fileno(), compress(lines))

        with Behind("layerhold-split", at_most=_PACKS_BEHIND) as behind:
            writer = SplitWriter(lambda lines: behind.do(pack, lines))
            yield writer
            writer.close()
        _write_all(file.fileno(), flush())


def assemble(split_path: str, open_file: Callable[[bytes], int]) -> Iterator[bytes]:
    """Put the tar together from the tar-split file and the layer's files, which `open_file` opens by their names.

    `open_file` gives a descriptor (opened without waiting, as for a FIFO) that is closed here. Raises DamagedLayer, at
    the latest after the bytes of the file it is about, and OSError; all that comes before what is damaged is given.
    """
    parts: list[bytes] = []
    size = 0
    try:
        for piece in _pieces(split_path, open_file):
            parts.append(piece)
            size += len(piece)
            if size >= _TOGETHER:
                yield b"".join(parts) if len(parts) > 1 else piece
                parts.clear()
                size = 0
    except (DamagedLayer, OSError):
        if parts:
            yield b"".join(parts)
        raise
    if parts:
        yield b"".join(parts)


def _pieces(split_path: str, open_file: Callable[[bytes], int]) -> Iterator[bytes]:
    for position, line in enumerate(_lines(split_path)):
        raw, name, size, crc = _fields(line, position)
        if raw:
            yield raw
        elif size > _READ:
            yield from _content(name, size, crc, open_file)
        elif size:
            block = _small_content(name, size, open_file)
            if block is None:
                yield from _content(name, size, crc, open_file)
            else:
                yield block
                if crc64(block, 0) != crc:
                    raise _mismatch(name)


def _small_content(name: bytes, size: int, open_file: Callable[[bytes], int]) -> bytes | None:
    """Give a file of `size` bytes by one read, which sees its end, too; None if it does not come so."""
    fd = _opened(name, open_file)
    try:
        block = os.read(fd, size + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return block if len(block) == size else None


def _content(name: bytes, size: int, crc: int, open_file: Callable[[bytes], int]) -> Iterator[bytes]:
    fd = _opened(name, open_file)
    try:
        status = os.fstat(fd)
        if not S_ISREG(status.st_mode) or status.st_size != size:
            raise _mismatch(name)
        found = 0
        while size:
            block = os.read(fd, min(size, _READ))
            if not block:
                raise _mismatch(name)
            size -= len(block)
            found = crc64(block, found)
            if not size and found != crc:
                yield block
                raise _mismatch(name)
            yield block
    finally:
        os.close(fd)


def _opened(name: bytes, open_file: Callable[[bytes], int]) -> int:
    try:
        return open_file(name)
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise DamagedLayer(f'"{os.fsdecode(name)}": {error.strerror}') from error
        raise


def _mismatch(name: bytes) -> DamagedLayer:
    return DamagedLayer(f'file integrity checksum failed for "{os.fsdecode(name)}"')


def _lines(split_path: str) -> Iterator[bytes]:
    """Give the lines of a tar-split file, without their ends."""
    rest: list[bytes] = []
    size = 0
    try:
        for block in unwrap(_blocks(split_path)):
            *lines, last = block.split(b"\n")
            if lines:
                yield b"".join((*rest, lines[0]))
                yield from lines[1:]
                rest.clear()
                size = 0
            rest.append(last)
            size += len(last)
            if size > _LINE_LIMIT:
                raise DamagedLayer(f"{split_path}: a line of more than {_LINE_LIMIT} bytes")
    except BadArchive as error:
        raise DamagedLayer(f"{split_path}: {error}") from error
    if size:
        yield b"".join(rest)


def _blocks(path: str) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        while block := os.read(fd, _PACKED):
            yield block
    finally:
        os.close(fd)


def _fields(line: bytes, position: int) -> tuple[bytes, bytes, int, int]:
    """Read a line: raw bytes of a segment; or name, size and checksum of a file."""
    if line.startswith(b'{"type":2,"payload":"'):
        payload, _, rest = line[21:].partition(b'"')
        if rest == b',"position":%d}' % position:
            return _base64(payload, position), b"", 0, 0
    elif line.startswith(b'{"type":1,"name":"'):
        name, _, rest = line[18:].partition(b'"')
        end = b',"position":%d}' % position
        if name.find(92) < 0 and rest.endswith(end):
            if rest == b',"payload":null' + end:
                return b"", name, 0, 0
            size, _, payload = rest[: -len(end)].partition(b',"payload":')
            if size[8:].isdigit() and size.startswith(b',"size":') and len(payload) == 14:
                return b"", name, int(size[8:]), int.from_bytes(_base64(payload[1:-1], position), "big")
    return _fields_of_any_form(line, position)


def _fields_of_any_form(line: bytes, position: int) -> tuple[bytes, bytes, int, int]:
    import json

    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(position, "not a JSON object") from error
    if not isinstance(record, dict) or not _is_int(record.get("position"), position):
        raise _damaged(position, "lines out of order")
    payload = record.get("payload")
    if not isinstance(payload, str | None):
        raise _damaged(position, "payload is no text")
    raw = _base64((payload or "").encode(), position)
    if _is_int(record.get("type"), 2):
        return raw, b"", 0, 0
    if not _is_int(record.get("type"), 1):
        raise _damaged(position, "unknown type")
    size = record.get("size", 0)
    if type(size) is not int or size < 0 or (size and len(raw) != 8):
        raise _damaged(position, "size without checksum")
    return b"", _name(record, position), size, int.from_bytes(raw, "big")


def _is_int(value: object, number: int) -> bool:
    return type(value) is int and value == number


def _name(record: dict[str, object], position: int) -> bytes:
    name, raw = record.get("name", ""), record.get("name_raw", "")
    if not isinstance(name, str) or not isinstance(raw, str) or (name and raw):
        raise _damaged(position, "name is no text")
    try:
        return name.encode() or _base64(raw.encode(), position)
    except UnicodeEncodeError as error:
        raise _damaged(position, "name is no text") from error


def _base64(text: bytes, position: int) -> bytes:
    try:
        return a2b_base64(text, strict_mode=True) if text else b""
    except Base64Error as error:
        raise _damaged(position, "payload is no base64") from error


def _damaged(position: int, why: str) -> DamagedLayer:
    return DamagedLayer(f"tar-split file, line {position + 1}: {why}")


def _named(name: bytes) -> bytes:
    if not name:
        return b""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return b'"name_raw":"%b",' % b2a_base64(name, newline=False)
    return b'"name":"%b",' % text.translate(_ESCAPES).encode()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
