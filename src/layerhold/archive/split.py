"""tar-split files: what of a tar stream is not the content of files, so that the files and it give the tar again.

The file is gzip over lines of JSON, each with its number (`position`) at the end:

    {"type":2,"payload":"<base64 of raw bytes>","position":0}
    {"type":1,"name":"bin/sh","size":1234,"payload":"<base64 of the CRC-64>","position":1}

A *segment* (2) holds raw bytes: headers, padding, end marks. A *file* line (1) follows the segment with the entry's
headers; where it has a size, the content of that file comes next, otherwise nothing, and its payload is null. Names
that are not UTF-8 stand as `name_raw` in base64. Content that no file of the layer could give back in the same form may
stand in a segment: then the file line has no size.

`SplitWriter` makes the lines, `split_file` a file of them. The tar is put together again by assemble.py.
"""

from __future__ import annotations

import os
from binascii import b2a_base64

from layerhold.archive.behind import Behind
from layerhold.archive.compress import gzip_compressor
from layerhold.blocks import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SplitWriter", "split_file"]

_SEGMENT_LIMIT = 1 << 20
_PACK = 1 << 20  # of lines that are compressed together
_PACKS_BEHIND = 2

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
