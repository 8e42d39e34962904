"""Whatever bytes come: tar entries or BadArchive, and every byte of what was read given away exactly once."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from layerhold import digests
from layerhold.archive.assemble import assemble
from layerhold.archive.source import open_source
from layerhold.archive.split import SplitWriter
from layerhold.archive.tar import TarReader
from layerhold.digests import crc64
from layerhold.errors import BadArchive, DamagedLayer
from tests.unit.archive.tars import END, GNU, blocks, by_tarfile, file, header, pax, read

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)

NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=150)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(NAMES))
    info.type = draw(KINDS)
    info.mode = draw(st.integers(0, 0o7777))
    info.uid = draw(st.integers(0, (1 << 32) - 1) | st.just(0))
    info.mtime = draw(st.integers(-(1 << 33), 1 << 36))
    info.linkname = draw(NAMES) if info.type == tarfile.SYMTYPE else ""
    return info, draw(st.binary(max_size=1500)) if info.type == tarfile.REGTYPE else b""


SAMPLES = (
    file(b"dir/a", b"hello")
    + pax((b"path", b"long" * 40), (b"SCHILY.xattr.user.a", b"b"), (b"mtime", b"5.5"))
    + file(b"x", b"y" * 700)
    + file(b"././@LongLink", b"n" * 200, kind=b"L", magic=GNU)
    + header(b"link", b"2", link=b"a", magic=GNU)
    + pax((b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", b"10,5,20,3"))
    + file(b"s", b"12345678")
    + pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
    + file(b"s", b"1\n1\n5\n".ljust(512, b"\0") + b"12345")
    + END
)


def read_or_refuse(data: bytes, size: int) -> None:
    with suppress(BadArchive):
        read(data, size)


@SETTINGS
@given(st.lists(members(), max_size=4), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.integers(1, 3000))
def test_what_tarfile_writes_is_read(files: list[tuple[tarfile.TarInfo, bytes]], form: int, size: int) -> None:
    found = read(by_tarfile(files, form), size)
    assert len(found) == len(files)
    for (info, data), (entry, content) in zip(files, found, strict=True):
        assert (content, entry.kind, entry.uid) == (data, info.type, info.uid)
        assert (entry.mode, entry.mtime) == (info.mode, info.mtime * 10**9)
        assert entry.name.decode().rstrip("/") == info.name.rstrip("/")


@SETTINGS
@given(st.binary(max_size=2000), st.integers(1, 2000))
def test_any_bytes(data: bytes, size: int) -> None:
    read_or_refuse(data, size)


@SETTINGS
@given(st.binary(max_size=1500), st.sampled_from([b"x", b"g", b"L", b"K"]))
def test_any_extended_header(data: bytes, kind: bytes) -> None:
    read_or_refuse(file(b"x", data, kind=kind) + file(b"a", b"x") + END, 1 << 20)


@SETTINGS
@given(st.integers(0, len(SAMPLES) - 1), st.integers(1, 255), st.integers(0, len(SAMPLES)), st.booleans())
def test_changed_and_cut(at: int, change: int, end: int, mend: bool) -> None:
    data = bytearray(SAMPLES)
    data[at] ^= change
    start = at - at % 512
    if mend:  # the checksum, so that the change is looked at.
        block = data[start : start + 512]
        data[start + 148 : start + 156] = b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:])
    read_or_refuse(bytes(data), 1 << 20)
    read_or_refuse(bytes(data[:end]), 700)


@SETTINGS
@given(st.binary(min_size=512, max_size=512))
def test_any_header_with_a_right_checksum(block: bytes) -> None:
    checked = block[:148] + b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:]) + block[156:]
    read_or_refuse(checked + file(b"a", b"x") + END, 1 << 20)


@SETTINGS
@given(st.lists(members(), max_size=4), st.integers(1, 3000), st.binary(max_size=600))
def test_taken_apart_and_put_together(files: list[tuple[tarfile.TarInfo, bytes]], size: int, garbage: bytes) -> None:
    data = by_tarfile(files, tarfile.PAX_FORMAT) + garbage
    lines: list[bytes] = []
    contents: list[bytes] = []
    split = SplitWriter(lines.append)
    reader = TarReader(blocks(data, size), header_sink=split.segment)
    while (entry := reader.next()) is not None:
        content = b"".join(reader.content())
        if content:
            contents.append(content)
        split.file(entry.name, entry.size, crc64(content))
    reader.drain()
    split.close()
    assert put_together(gzip.compress(b"".join(lines)), contents) == data


@SETTINGS
@given(st.binary(max_size=300), st.booleans())
def test_any_split_file(data: bytes, whole: bool) -> None:
    line = b'{"type":2,"payload":"YQ==","position":0}\n' + data if whole else data
    with suppress(DamagedLayer):
        put_together(gzip.compress(line), [])


def put_together(split: bytes, contents: list[bytes]) -> bytes:
    rest = iter(contents)

    def opened(_name: bytes) -> int:
        fd = os.memfd_create("content")
        os.write(fd, next(rest, b""))
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    with tempfile.NamedTemporaryFile() as file:
        file.write(split)
        file.flush()
        return b"".join(assemble(file.name, opened))


@SETTINGS
@given(st.sampled_from([b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=300))
def test_any_compressed_stream(magic: bytes, data: bytes) -> None:
    with suppress(BadArchive), open_source(io.BytesIO(magic + data)) as source:
        list(source)


@SETTINGS
@given(st.binary(max_size=5000), st.integers(0, (1 << 64) - 1))
def test_the_checksum_in_python_is_that_of_the_wheel(data: bytes, value: int) -> None:
    assert digests._folded(data, value) == crc64(data, value)
