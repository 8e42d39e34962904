"""A layer's tar stream into a directory, in one pass.

    stream ── compress: digests and sizes of both sides ── tar: entries ──┬── extract: files
                                                                          └── split: how to put the tar together again

The tar-split file holds headers and padding, and for each file its name, size and CRC. The content of what cannot be
read back from a file as it was (sparse files, whiteouts with content) goes between the headers instead: readers take
that, and the layer comes back byte for byte.

Nothing is published here. When it fails, the directory and the tar-split file are half-made, and the caller, who made
them aside, throws them away. The caller also syncs the directory; the tar-split file is synced here.
"""

from __future__ import annotations

import os
import stat

from layerhold.archive.extract import Extractor
from layerhold.archive.source import open_source
from layerhold.archive.split import split_file
from layerhold.archive.tar import TarReader
from layerhold.archive.whiteouts import is_mark
from layerhold.blocks import contextmanager
from layerhold.digests import Digest
from layerhold.errors import DigestMismatch, InvalidDigest, RefusedEntry, UnsupportedDigest
from layerhold.progress import Meter
from layerhold.tree.root import Root
from layerhold.tree.writing_back import STEP, WritingBack
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from layerhold.archive.entry import Entry
    from layerhold.archive.override_stat import Masked
    from layerhold.archive.source import Readable, Source
    from layerhold.archive.split import SplitWriter
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback

    Unpacker = Extractor | Masked

# They stand in the layer's record, so a hostile archive must not have one for each entry.
_MAX_OWNERS = 1 << 16
_FILE = 4096  # bytes that a file costs the disk besides its own


class Applied(Value):
    """What came in: `left_out` counts devices and attributes that an ordinary user could not have."""

    compression: int
    compressed_digest: Digest
    compressed_size: int
    diff_digest: Digest
    diff_size: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    content_size: int
    left_out: int = 0


def _refuse_unknown(expect: str) -> None:
    """Raise InvalidDigest for what no stream can be found to have."""
    about = f'expecting "{expect}"'
    try:
        algorithm = Digest.parse(expect).algorithm
    except InvalidDigest as error:
        raise type(error)(expect, about) from None
    if algorithm != "sha256":
        raise UnsupportedDigest(expect, about)


def apply(
    stream: Readable,
    root_path: str,
    *,
    deletions: str,
    xattr_prefix: str = "trusted.overlay.",
    mappings: IdMappings | None = None,
    squash: bool = False,
    mask: int | None = None,
    split_path: str | None = None,
    expect: Digest | str | None = None,
    progress: Callback | None = None,
) -> Applied:
    """Unpack `stream` into the directory `root_path`, and note in `split_path` how to make the tar again.

    `expect` is the digest that the stream is to have, as it comes or uncompressed. `progress` is told how much of the
    stream has come, and how many entries; what it raises passes through. With `mask` all files get that mode, and their
    own is written beside them. Raises BadArchive, RefusedEntry, NotPermitted,
    DigestMismatch, InvalidDigest (`expect`; UnsupportedDigest for all but sha256), StorageError (an owner that is not
    mapped), OSError.
    """
    if expect is not None:
        _refuse_unknown(expect)
    meter = None if progress is None else Meter(progress, "unpacking", total_bytes=_left_to_read(stream))
    with (
        _writing_split(split_path) as split,
        open_source(stream) as source,
        Root(root_path, filling=True) as root,
        Extractor(
            root,
            deletions=deletions,
            xattr_prefix=xattr_prefix,
            mappings=mappings if mask is None else None,
            squash=squash,
        ) as extractor,
        WritingBack(root_path) as writing_back,
    ):
        tally = _Tally(writing_back)
        into: Unpacker = extractor
        if mask is not None:
            from layerhold.archive.override_stat import Masked

            into = Masked(extractor, mask, mappings)
        _unpack(source if meter is None else _metered(source, tally, meter), into, split, tally)
    if expect is not None and expect not in (source.compressed_digest, source.diff_digest):
        found = source.compressed_digest
        raise DigestMismatch(f"expected {expect}, got {found}")
    return Applied(
        compression=source.compression,
        compressed_digest=source.compressed_digest,
        compressed_size=source.compressed_size,
        diff_digest=source.diff_digest,
        diff_size=source.diff_size,
        uids=tuple(sorted(tally.uids)),
        gids=tuple(sorted(tally.gids)),
        content_size=tally.size,
        left_out=extractor.left_out,
    )


class _Tally:
    """The owners of entries, how many there are, and the bytes of their files; has these written back meanwhile."""

    def __init__(self, writing_back: WritingBack) -> None:
        self._writing_back = writing_back
        self._unwritten = 0
        self.entries = 0
        self.uids: set[int] = set()
        self.gids: set[int] = set()
        self.size = 0

    def count(self, entry: Entry) -> None:
        self.entries += 1
        self.size += entry.real_size
        self._unwritten += entry.size + _FILE
        if self._unwritten > STEP:
            self._unwritten = 0
            self._writing_back.go()
        if entry.uid in self.uids and entry.gid in self.gids:
            return
        if entry.kind == b"g" or is_mark(entry.path):
            return
        self.uids.add(entry.uid & 0xFFFFFFFF)
        self.gids.add(entry.gid & 0xFFFFFFFF)
        if len(self.uids) > _MAX_OWNERS or len(self.gids) > _MAX_OWNERS:
            raise RefusedEntry(os.fsdecode(entry.name), f"the archive has more than {_MAX_OWNERS} different owners")


def _metered(source: Source, tally: _Tally, meter: Meter) -> Iterator[bytes]:
    """Pass the blocks on, and say how far the source has come: it counts in a thread of its own, a few blocks ahead."""
    for block in source:
        meter.at(bytes=source.compressed_size, entries=tally.entries)
        yield block
    meter.at(bytes=source.compressed_size, entries=tally.entries)
    meter.done()


def _left_to_read(stream: Readable) -> int | None:
    """Count the bytes that a file still has, if it is a regular one that is read as it is."""
    import io

    if not isinstance(getattr(stream, "raw", stream), io.FileIO):
        return None
    file: io.FileIO = stream  # type: ignore[assignment]
    status = os.fstat(file.fileno())
    return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None


def _unpack(blocks: Iterable[bytes], extractor: Unpacker, split: SplitWriter | None, tally: _Tally) -> None:
    reader = TarReader(blocks, header_sink=split.segment if split else None)
    while (entry := reader.next()) is not None:
        tally.count(entry)
        if split is None or extractor.keeps(entry):
            crc = extractor.add(entry, reader.content())
            if split is not None:
                split.file(entry.name, entry.size, crc)
        else:
            _unpack_odd(entry, reader, extractor, split)
    reader.drain()


def _unpack_odd(entry: Entry, reader: TarReader, extractor: Unpacker, split: SplitWriter) -> None:
    """Unpack what has no content, or content that only the tar-split file can give back."""
    if entry.kind != b"g":  # two of those may have the same name, which the Go program's reader refuses
        split.file(entry.name, 0, None)
    if not entry.size:
        extractor.add(entry, reader.content())
        return
    copied = _copied(reader.content(), split)
    extractor.add(entry, copied)
    for _ in copied:
        pass


def _copied(content: Iterator[memoryview], split: SplitWriter) -> Iterator[memoryview]:
    for block in content:
        split.segment(block)
        yield block


@contextmanager
def _writing_split(path: str | None) -> Iterator[SplitWriter | None]:
    if path is None:
        yield None
        return
    with split_file(path) as split:
        yield split
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)
