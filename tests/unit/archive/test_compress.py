from __future__ import annotations

import bz2
import gzip
import lzma
import random
from typing import TYPE_CHECKING

import pytest

from layerhold.archive import compress
from layerhold.archive.compress import BLOCK, BZIP2, GZIP, NONE, XZ, ZSTD, detect, unwrap, wrap
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


def unpacked(data: bytes) -> bytes:
    pieces = (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
    return b"".join(unwrap(pieces))


@pytest.fixture(params=["wheel", "zlib"])
def gunzip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setattr(compress, "igzip_lib", None)
        monkeypatch.setattr(compress, "isal_zlib", None)


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
