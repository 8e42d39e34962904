"""Tar archives for tests, made block by block where the standard library would not make them."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

from layerhold.archive.tar import Entry, TarReader

if TYPE_CHECKING:
    from collections.abc import Iterator

END = bytes(1024)
GNU = b"ustar  \0"
POSIX = b"ustar\x0000"


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def header(name: bytes, kind: bytes = b"0", **fields: Any) -> bytes:
    """One header; `fields` are bytes, or ints to be written in octal."""
    widths = {"mode": 8, "uid": 8, "gid": 8, "size": 12, "mtime": 12, "major": 8, "minor": 8}
    values: dict[str, Any] = {
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": 0,
        "mtime": 0,
        "major": 0,
        "minor": 0,
        **fields,
    }
    number = {
        key: value if isinstance(value := values[key], bytes) else octal(value, width) for key, width in widths.items()
    }
    block: bytes = (
        name.ljust(100, b"\0")
        + number["mode"].ljust(8, b"\0")
        + number["uid"]
        + number["gid"]
        + number["size"]
        + number["mtime"]
        + b"        "
        + kind
        + fields.get("link", b"").ljust(100, b"\0")
        + fields.get("magic", POSIX)
        + bytes(64)
        + number["major"]
        + number["minor"]
        + fields.get("tail", fields.get("prefix", b"")).ljust(167, b"\0")
    )
    assert len(block) == 512
    return block[:148] + b"%06o\0 " % fields.get("check", sum(block)) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes = b"", **fields: Any) -> bytes:
    return header(name, size=len(data), **fields) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    if len(str(size)) > len(str(rest)):
        size += 1
    return b"%d %b=%b\n" % (size, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    return file(b"PaxHeaders/x", b"".join(record(*each) for each in records), kind=kind)


def read(data: bytes, size: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    """Read a tar in blocks of `size`; what the reader gave away must be the whole of it."""
    given: list[bytes] = []
    found = []
    reader = TarReader(blocks(data, size), header_sink=lambda raw: given.append(bytes(raw)))
    while (entry := reader.next()) is not None:
        content = b"".join(reader.content())
        assert len(content) == entry.size
        given.append(content)
        found.append((entry, content))
    assert reader.next() is None
    reader.drain()
    assert b"".join(given) == data
    return found


def blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def only(data: bytes) -> Entry:
    ((entry, _),) = read(data)
    return entry


def by_tarfile(members: list[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
