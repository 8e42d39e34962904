"""Compressed streams: told apart by their first bytes, unwrapped, wrapped.

Several gzip members, xz streams, bzip2 streams, zstd frames in a row are one stream, as in Go; anything else after the
first is an error. Windows over 128 MiB are refused. `isal` unpacks gzip twice as fast as `zlib`, which does without it.
"""

from __future__ import annotations

import zlib

from layerhold.errors import BadArchive, StorageError
from layerhold.values import Protocol

try:
    from isal import igzip_lib, isal_zlib
    from isal.isal_zlib import adler32
except ImportError:
    from zlib import adler32

    igzip_lib = isal_zlib = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

__all__ = [
    "BZIP2",
    "GZIP",
    "NONE",
    "XZ",
    "ZSTD",
    "adler32",
    "detect",
    "unwrap",
    "unwrapped",
    "wrap",
]

NONE, BZIP2, GZIP, XZ, ZSTD = range(5)
SUFFIXES = ("tar", "tar.bz2", "tar.gz", "tar.xz", "tar.zst")

_MAGIC = ((b"BZh", BZIP2), (b"\x1f\x8b\x08", GZIP), (b"\xfd7zXZ\x00", XZ), (b"\x28\xb5\x2f\xfd", ZSTD))
MAGIC_LENGTH = 6
BLOCK = 1 << 20  # large, since each block has threads wait for the interpreter's lock, and for each other.
_FIRST_PIECE = 16 << 10  # of what may be a next member: what is left after its end is copied, so it begins small.
_WINDOW_LOG = 27
_GZIP_WBITS = 31
_GZIP_LEVEL = 3  # of isal's 0 to 3


class _Decompressor(Protocol):
    """What the decompressors of the standard library have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes: ...


def detect(first_bytes: bytes | memoryview) -> int:
    """Tell how a stream that begins with these bytes is compressed."""
    start = bytes(first_bytes[:MAGIC_LENGTH])
    return next((code for magic, code in _MAGIC if start.startswith(magic)), NONE)


def unwrap(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Give the plain bytes of a stream however it is compressed, in blocks of bounded size. Raises BadArchive."""
    rest = iter(chunks)
    first = b""
    for chunk in rest:
        first += chunk
        if len(first) >= MAGIC_LENGTH:
            break
    return unwrapped(_chain(first, rest), detect(first))


def wrap(chunks: Iterable[bytes], compression: int) -> Iterator[bytes]:
    """Compress a stream; what is asked for must be gzip, zstd or nothing. Raises StorageError."""
    if compression == NONE:
        return iter(chunks)
    if compression not in (GZIP, ZSTD):
        raise StorageError(f"unsupported compression format {SUFFIXES[compression]}")
    compressor = gzip_compressor() if compression == GZIP else _zstd_compressor()
    return _wrapped(chunks, *compressor)


def _wrapped(
    chunks: Iterable[bytes], compress: Callable[[bytes], bytes], flush: Callable[[], bytes]
) -> Iterator[bytes]:
    try:
        for chunk in chunks:
            packed = compress(chunk)
            if packed:
                yield packed
        yield flush()
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def unwrapped(chunks: Iterator[bytes], compression: int) -> Iterator[bytes]:
    """Give the plain bytes of a stream that is compressed in that way. Raises BadArchive."""
    if compression == NONE:
        return (chunk for chunk in chunks if chunk)
    make, errors = _DECOMPRESSORS[compression]()
    return _members(chunks, make, errors, padded=compression == XZ)


def _members(
    chunks: Iterator[bytes], make: Callable[[], _Decompressor], errors: tuple[type[Exception], ...], *, padded: bool
) -> Iterator[bytes]:
    """Unpack one member after the other; `padded` allows zeros, a multiple of four of them, after each."""
    member: _Decompressor | None = None
    size = _FIRST_PIECE
    zeros = 0
    for chunk in chunks:
        view = memoryview(chunk)
        at = 0
        while at < len(chunk):
            if member is None:
                if padded and chunk[at] == 0:
                    at, zeros = at + 1, zeros + 1
                    continue
                _refuse_padding(zeros)
                member, size, zeros = make(), _FIRST_PIECE, 0
            piece = view[at : at + size]
            at += len(piece)
            size = BLOCK
            yield from _unpacked(member, piece, errors)
            if member.eof:
                at -= len(member.unused_data)
                member = None
    _refuse_padding(zeros)
    if member is not None:
        raise BadArchive("unexpected end of compressed data")


def _refuse_padding(zeros: int) -> None:
    if zeros % 4:
        raise BadArchive("cannot decompress: invalid padding between streams")


def _unpacked(member: _Decompressor, piece: memoryview, errors: tuple[type[Exception], ...]) -> Iterator[bytes]:
    data: bytes | memoryview = piece
    while True:
        try:
            block = member.decompress(data, BLOCK)
        except errors as error:
            raise BadArchive(f"cannot decompress: {error}") from error
        if block:
            yield block
        # One that has taken all its input may still hold some output back, if as much as it might give came out.
        if member.eof or (member.needs_input and len(block) < BLOCK):
            return
        data = b""


class _ZlibMember:
    """`zlib` with the interface of the other decompressors."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(wbits=_GZIP_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        rest = self._object.unconsumed_tail
        block = self._object.decompress(rest + data if rest else data, max_length)
        self.needs_input = not self._object.unconsumed_tail and len(block) < max_length
        return block


def _gzip() -> tuple[Callable[[], _Decompressor], tuple[type[Exception], ...]]:
    if igzip_lib is None:
        return _ZlibMember, (zlib.error,)
    flag = igzip_lib.DECOMP_GZIP
    # The wheel's types take the class for an instance.
    broken: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
    return lambda: igzip_lib.IgzipDecompressor(flag=flag), (broken, EOFError)


def _bzip2() -> tuple[Callable[[], _Decompressor], tuple[type[Exception], ...]]:
    import bz2

    return bz2.BZ2Decompressor, (OSError, EOFError)


def _xz() -> tuple[Callable[[], _Decompressor], tuple[type[Exception], ...]]:
    import lzma

    return lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << _WINDOW_LOG), (lzma.LZMAError, EOFError)


def _zstd() -> tuple[Callable[[], _Decompressor], tuple[type[Exception], ...]]:
    zstd = _zstd_module()
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    return lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError, EOFError)


_DECOMPRESSORS = {BZIP2: _bzip2, GZIP: _gzip, XZ: _xz, ZSTD: _zstd}


def _zstd_module() -> Any:  # noqa: ANN401 - two modules, of which at most one is there.
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise StorageError("zstd is not supported", hint="install backports.zstd") from None
    return zstd


def gzip_compressor(level: int = _GZIP_LEVEL) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    """Give the two functions that pack a gzip member: one for each chunk, one for the end."""
    if isal_zlib is None:
        plain = zlib.compressobj(1 if level == 1 else 6, zlib.DEFLATED, _GZIP_WBITS)
        return plain.compress, plain.flush
    fast = isal_zlib.compressobj(level, isal_zlib.DEFLATED, _GZIP_WBITS)
    return fast.compress, fast.flush


def _zstd_compressor() -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    compressor = _zstd_module().ZstdCompressor()
    return compressor.compress, compressor.flush
