"""Iterators of bytes as files to read from."""

from __future__ import annotations

import io

from layerhold.blocks import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from _typeshed import WriteableBuffer


_BUFFER = 256 << 10  # as large as the largest chunks


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        into = memoryview(buffer).cast("B")
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


@contextmanager
def as_file(chunks: Iterator[bytes]) -> Iterator[BinaryIO]:
    """Give what `chunks` yields as a binary file; at the end of the block the iterator is closed."""
    try:
        yield io.BufferedReader(_Chunks(chunks), buffer_size=_BUFFER)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
