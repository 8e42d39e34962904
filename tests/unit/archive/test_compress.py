from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import threading
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from layerhold.archive import compress
from layerhold.archive.compress import BZIP2, GZIP, NONE, XZ, ZSTD, detect, open_source, unwrap, wrap
from layerhold.errors import BadArchive, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = random.Random(1).randbytes(300_000) + bytes(3_000_000) + b"end"


def zstd(data: bytes) -> bytes:
    return b"".join(wrap([data], ZSTD))


PACKERS: list[tuple[int, Callable[[bytes], bytes]]] = [
    (GZIP, gzip.compress),
    (GZIP, lambda data: b"".join(wrap([data], GZIP))),
    (BZIP2, bz2.compress),
    (XZ, lzma.compress),
    (ZSTD, zstd),
]


class Trickle(io.RawIOBase):
    """A stream that gives few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1000))


def unpacked(data: bytes) -> bytes:
    with open_source(io.BytesIO(data)) as source:
        return b"".join(source)


@pytest.fixture(params=["wheel", "zlib"])
def gunzip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setattr(compress, "igzip_lib", None)
        monkeypatch.setattr(compress, "isal_zlib", None)


@pytest.mark.parametrize(("code", "pack"), PACKERS)
@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_both_sides_are_hashed(code: int, pack: Callable[[bytes], bytes], stream: type[Trickle], gunzip: None) -> None:
    packed = pack(DATA)
    with open_source(stream(packed)) as source:
        blocks = list(source)
    assert b"".join(blocks) == DATA
    assert max(map(len, blocks)) <= 1 << 20
    assert (source.compression, source.compressed_size, source.diff_size) == (code, len(packed), len(DATA))
    assert source.compressed_digest == f"sha256:{sha256(packed).hexdigest()}"
    assert source.diff_digest == f"sha256:{sha256(DATA).hexdigest()}"


@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_plain(data: bytes) -> None:
    with open_source(Trickle(data)) as source:
        assert b"".join(source) == data
    assert (source.compression, source.compressed_size, source.diff_size) == (NONE, len(data), len(data))
    assert source.compressed_digest == source.diff_digest == f"sha256:{sha256(data).hexdigest()}"


def test_digests_that_are_not_wanted() -> None:
    with open_source(io.BytesIO(gzip.compress(DATA)), want_digests=False) as source:
        assert b"".join(source) == DATA
    assert (source.compressed_digest, source.diff_digest, source.diff_size) == ("", "", len(DATA))


@pytest.mark.parametrize(("code", "pack"), PACKERS)
def test_one_after_the_other(code: int, pack: Callable[[bytes], bytes], gunzip: None) -> None:
    parts = [DATA[at : at + 200_000] for at in range(0, len(DATA), 200_000)]
    assert unpacked(b"".join(map(pack, parts)) + pack(b"")) == DATA
    assert unpacked(pack(b"") * 3000 + pack(b"x")) == b"x"


@pytest.mark.parametrize(("code", "pack"), PACKERS)
@pytest.mark.parametrize("cut", [1, 4, 8, 100, 1000])
def test_cut_short(code: int, pack: Callable[[bytes], bytes], cut: int, gunzip: None) -> None:
    with pytest.raises(BadArchive, match="unexpected end"):
        unpacked(pack(DATA)[:-cut])


@pytest.mark.parametrize(("code", "pack"), PACKERS)
@pytest.mark.parametrize("after", [b"\0", b"garbage that is longer than any header could be", bytes(1022)])
def test_garbage_after_the_end(code: int, pack: Callable[[bytes], bytes], after: bytes, gunzip: None) -> None:
    with pytest.raises(BadArchive):
        unpacked(pack(DATA) + after)


@pytest.mark.parametrize("at", [-1, -5, -8, 100])
def test_gzip_that_was_changed(at: int, gunzip: None) -> None:
    for before in (b"", gzip.compress(b"first")):
        packed = bytearray(gzip.compress(DATA))
        packed[at] ^= 0xE0
        with pytest.raises(BadArchive):
            unpacked(before + bytes(packed))


def test_padding_between_xz_streams() -> None:
    assert unpacked(lzma.compress(b"a") + bytes(8) + lzma.compress(b"b") + bytes(4)) == b"ab"


def test_skippable_zstd_frames() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    assert unpacked(zstd(b"a") + skippable + zstd(b"b") + skippable) == b"ab"


def test_zstd_windows_are_bounded() -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, (28 - 10) << 3]) + (0x2 | 1 | (100 << 3)).to_bytes(3, "little") + b"x"
    with pytest.raises(BadArchive):
        unpacked(frame)


def test_errors_of_the_stream_reach_the_caller() -> None:
    class Failing(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            raise OSError(5, "broken")

    with open_source(Failing()) as source, pytest.raises(OSError, match="broken"):
        list(source)


def test_read_errors_are_not_taken_for_bad_archives() -> None:
    class Failing(io.RawIOBase):
        parts = [bz2.compress(DATA)[:1000]]  # noqa: RUF012 - emptied by the one stream there is.

        def read(self, _size: int = -1) -> bytes:
            if self.parts:
                return self.parts.pop()
            raise OSError(5, "broken")

    with open_source(Failing()) as source, pytest.raises(OSError, match="broken"):
        list(source)


def test_leaving_early_ends_the_thread() -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    before = threading.active_count()
    with open_source(Endless()) as source:
        next(iter(source))
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with open_source(io.BytesIO(gzip.compress(bytes(50_000_000)))) as source:
        next(iter(source))
    assert threading.active_count() == before
    with open_source(Endless()):
        pass
    assert threading.active_count() == before


def test_reading_from_a_file_goes_on_where_it_was() -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"firstrest")
    os.close(write_fd)
    with open(read_fd, "rb") as stream:
        assert stream.read(5) == b"first"
        with open_source(stream) as source:
            assert b"".join(source) == b"rest"


def test_detect() -> None:
    assert [detect(pack(b"")) for _, pack in PACKERS] == [code for code, _ in PACKERS]
    assert detect(b"") == detect(b"\x1f\x8b") == NONE


def test_unwrap_and_wrap() -> None:
    for code in (NONE, GZIP, ZSTD):
        assert b"".join(unwrap(wrap(iter([DATA, b"", b"more"]), code))) == DATA + b"more"
    assert b"".join(unwrap([])) == b""
    for code, name in ((BZIP2, "tar.bz2"), (XZ, "tar.xz")):
        with pytest.raises(StorageError, match=f"unsupported compression format {name}"):
            wrap([], code)
