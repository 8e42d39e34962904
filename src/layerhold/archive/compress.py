"""Compressed streams: told apart by their first bytes, unwrapped, wrapped.

`open_source` unwraps in a thread of its own, and hashes both sides in another, so that both go on while the caller
writes files: the decompressors and hashlib release the interpreter's lock. (A plain stream needs only the first.) The
threads only read, hash and unwrap; queues of at most `_AHEAD` blocks lie between. What fails there is raised to the
caller, and leaving the block early ends the threads at their next block, and waits for them.

Several gzip members, xz streams, bzip2 streams, zstd frames in a row are one stream, as in Go; anything else after the
first is an error. Windows over 128 MiB are refused. `isal` unpacks gzip twice as fast as `zlib`, which does without it.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from contextlib import closing, contextmanager
from queue import SimpleQueue

from layerhold.archive.behind import Behind, places
from layerhold.digests import Digest
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
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any

__all__ = [
    "BZIP2",
    "GZIP",
    "NONE",
    "XZ",
    "ZSTD",
    "Readable",
    "Source",
    "adler32",
    "detect",
    "open_source",
    "unwrap",
    "wrap",
]

NONE, BZIP2, GZIP, XZ, ZSTD = range(5)
SUFFIXES = ("tar", "tar.bz2", "tar.gz", "tar.xz", "tar.zst")

_MAGIC = ((b"BZh", BZIP2), (b"\x1f\x8b\x08", GZIP), (b"\xfd7zXZ\x00", XZ), (b"\x28\xb5\x2f\xfd", ZSTD))
_MAGIC_LENGTH = 6
_BLOCK = 1 << 20  # large, since each block has threads wait for the interpreter's lock, and for each other.
_AHEAD = 8
_FIRST_PIECE = 16 << 10  # of what may be a next member: what is left after its end is copied, so it begins small.
_WINDOW_LOG = 27
_GZIP_WBITS = 31
_GZIP_LEVEL = 3  # of isal's 0 to 3


class Readable(Protocol):
    """Anything with a `read` that gives some bytes, and none at the end."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes."""


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
    start = bytes(first_bytes[:_MAGIC_LENGTH])
    return next((code for magic, code in _MAGIC if start.startswith(magic)), NONE)


class Source:
    """A stream as plain bytes: iterate over it once, to the end, then ask what it was.

    A digest that was not wanted is the empty one.
    """

    def __init__(self, stream: Readable, *, want_digests: bool) -> None:
        self.compression = NONE
        self.compressed_size = 0
        self.diff_size = 0
        self.compressed_digest = Digest("")
        self.diff_digest = Digest("")
        self._want_digests = want_digests
        self._read = _reader(stream)
        self._queue: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._free = places(_AHEAD)
        self._closed = False
        self._thread = threading.Thread(target=self._produce, name="layerhold-source", daemon=True)

    def __iter__(self) -> Iterator[bytes]:
        get, release = self._queue.get, self._free.put
        while (block := get()) is not None:
            if isinstance(block, BaseException):
                self._queue.put(block)
                raise block
            release(None)
            yield block
        self._queue.put(None)

    def _start(self) -> None:
        self._thread.start()

    def _close(self) -> None:
        self._closed = True
        self._free.put(None)
        self._thread.join()

    def _produce(self) -> None:
        try:
            with closing(self._hashed()) as blocks:
                for block in blocks:
                    self._free.get()
                    if self._closed:
                        return
                    self._queue.put(block)
        except BaseException as error:  # it is raised again in the caller's thread.
            self._queue.put(error)
        else:
            self._queue.put(None)

    def _hashed(self) -> Generator[bytes]:
        """Give the plain blocks, and note sizes and digests of both sides; a stream that is plain is hashed once."""
        first = _at_least(_MAGIC_LENGTH, self._read)
        self.compression = detect(first)
        if not self._want_digests:
            yield from self._counted(_unwrapped(self._chunks(first, _ignore), self.compression))
            return
        outer = inner = hashlib.sha256()
        if self.compression == NONE:
            yield from self._counted(_unwrapped(self._chunks(first, outer.update), NONE))
        else:
            inner = hashlib.sha256()
            with Behind("layerhold-hash", at_most=_AHEAD) as behind:
                chunks = self._chunks(first, lambda chunk: behind.do(outer.update, chunk))
                for block in self._counted(_unwrapped(chunks, self.compression)):
                    behind.do(inner.update, block)
                    yield block
        self.compressed_digest = Digest(f"sha256:{outer.hexdigest()}")
        self.diff_digest = Digest(f"sha256:{inner.hexdigest()}")

    def _counted(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.diff_size += len(block)
            yield block

    def _chunks(self, first: bytes, note: Callable[[bytes], None]) -> Iterator[bytes]:
        chunk = first
        while chunk and not self._closed:
            self.compressed_size += len(chunk)
            note(chunk)
            yield chunk
            chunk = self._read(_BLOCK)


def _ignore(_chunk: bytes) -> None:
    pass


@contextmanager
def open_source(stream: Readable, *, want_digests: bool = True) -> Iterator[Source]:
    """Unwrap and hash what `stream` gives, in a thread that ends with the block.

    Iterating raises BadArchive for what cannot be unwrapped, and what reading the stream raises.
    """
    source = Source(stream, want_digests=want_digests)
    source._start()
    try:
        yield source
    finally:
        source._close()


def unwrap(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Give the plain bytes of a stream however it is compressed, in blocks of bounded size. Raises BadArchive."""
    rest = iter(chunks)
    first = b""
    for chunk in rest:
        first += chunk
        if len(first) >= _MAGIC_LENGTH:
            break
    return _unwrapped(_chain(first, rest), detect(first))


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


def _reader(stream: Readable) -> Callable[[int], bytes]:
    """Find the method that gives what is there without waiting for more."""
    read = getattr(stream, "read1", None) or getattr(stream, "read", None)
    if read is not None:
        return read  # type: ignore[no-any-return]

    def read_into(size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: stream.readinto(buffer)])  # type: ignore[attr-defined]

    return read_into


def _at_least(count: int, read: Callable[[int], bytes]) -> bytes:
    start = b""
    while len(start) < count:
        chunk = read(_BLOCK)
        if not chunk:
            break
        start += chunk
    return start


def _unwrapped(chunks: Iterator[bytes], compression: int) -> Iterator[bytes]:
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
            size = _BLOCK
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
            block = member.decompress(data, _BLOCK)
        except errors as error:
            raise BadArchive(f"cannot decompress: {error}") from error
        if block:
            yield block
        # One that has taken all its input may still hold some output back, if as much as it might give came out.
        if member.eof or (member.needs_input and len(block) < _BLOCK):
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
