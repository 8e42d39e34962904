"""A layer's tar, put together again from its tar-split file (split.py) and its files.

Nothing is trusted: lines have to be in order and of bounded length, and of known types, and files ordinary ones with
the size and checksum that were noted. A file that lacks its last lines shows nothing of that: the caller compares size
and digest of the whole with the layer's record.
"""

from __future__ import annotations

import os
from binascii import Error as Base64Error
from binascii import a2b_base64
from errno import EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EXDEV
from stat import S_ISREG

from layerhold.archive.compress import unwrap
from layerhold.digests import crc64
from layerhold.errors import BadArchive, DamagedLayer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["assemble"]

_LINE_LIMIT = 16 << 20  # others write segments of up to 8 MiB, which base64 makes 11.
_READ = 256 << 10  # with more, the memory goes back to the kernel each time, and comes anew page by page
_TOGETHER = 128 << 10  # small pieces are handed on together, as each piece costs the same further on.
_PACKED = 64 << 10
_SEGMENT = b'{"type":2,"payload":"'
_NOT_THERE = frozenset((EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EXDEV))  # what `open_file` says of a tree that changed.


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
    position = -1
    for lines in _lines(split_path):
        for line in lines:
            position += 1
            end = b'","position":%d}' % position
            if line.startswith(_SEGMENT) and line.endswith(end):  # every second line, and most of the bytes
                try:
                    yield a2b_base64(line[len(_SEGMENT) : -len(end)], strict_mode=True)
                    continue
                except Base64Error:
                    pass
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


def _lines(split_path: str) -> Iterator[list[bytes]]:
    """Give the lines of a tar-split file, without their ends, many at once."""
    rest: list[bytes] = []
    size = 0
    try:
        for block in unwrap(_blocks(split_path)):
            *lines, last = block.split(b"\n")
            if lines:
                lines[0] = b"".join((*rest, lines[0]))
                yield lines
                rest.clear()
                size = 0
            rest.append(last)
            size += len(last)
            if size > _LINE_LIMIT:
                raise DamagedLayer(f"{split_path}: a line of more than {_LINE_LIMIT} bytes")
    except BadArchive as error:
        raise DamagedLayer(f"{split_path}: {error}") from error
    if size:
        yield [b"".join(rest)]


def _blocks(path: str) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        while block := os.read(fd, _PACKED):
            yield block
    finally:
        os.close(fd)


def _fields(line: bytes, position: int) -> tuple[bytes, bytes, int, int]:
    """Read a line: raw bytes of a segment; or name, size and checksum of a file."""
    if line.startswith(b'{"type":1,"name":"'):
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
