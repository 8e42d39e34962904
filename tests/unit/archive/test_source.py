from __future__ import annotations

import bz2
import gzip
import io
import os
import threading
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from layerhold.archive.compress import NONE
from layerhold.archive.source import open_source
from tests.unit.archive.test_compress import DATA, PACKERS

if TYPE_CHECKING:
    from collections.abc import Callable


class Trickle(io.RawIOBase):
    """A stream that gives few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1000))


@pytest.mark.parametrize(("code", "pack"), PACKERS)
@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_both_sides_are_hashed(code: int, pack: Callable[[bytes], bytes], stream: type[Trickle]) -> None:
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
