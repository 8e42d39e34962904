"""A stream that comes in, as plain bytes: unwrapped and hashed in threads, while the caller writes files.

`open_source` unwraps in a thread of its own, and hashes both sides in another, so that both go on while the caller
writes files: the decompressors and hashlib release the interpreter's lock. (A plain stream needs only the first.) The
threads only read, hash and unwrap; queues of at most `_AHEAD` blocks lie between. What fails there is raised to the
caller, and leaving the block early ends the threads at their next block, and waits for them.
"""

from __future__ import annotations

import hashlib
import threading
from contextlib import closing, contextmanager
from queue import SimpleQueue

from layerhold.archive.behind import Behind, places
from layerhold.archive.compress import BLOCK, MAGIC_LENGTH, NONE, detect, unwrapped
from layerhold.digests import Digest
from layerhold.values import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["Readable", "Source", "open_source"]

_AHEAD = 8


class Readable(Protocol):
    """Anything with a `read` that gives some bytes, and none at the end."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes."""


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
        first = _at_least(MAGIC_LENGTH, self._read)
        self.compression = detect(first)
        if not self._want_digests:
            yield from self._counted(unwrapped(self._chunks(first, _ignore), self.compression))
            return
        outer = inner = hashlib.sha256()
        if self.compression == NONE:
            yield from self._counted(unwrapped(self._chunks(first, outer.update), NONE))
        else:
            inner = hashlib.sha256()
            with Behind("layerhold-hash", at_most=_AHEAD) as behind:
                chunks = self._chunks(first, lambda chunk: behind.do(outer.update, chunk))
                for block in self._counted(unwrapped(chunks, self.compression)):
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
            chunk = self._read(BLOCK)


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
        chunk = read(BLOCK)
        if not chunk:
            break
        start += chunk
    return start
