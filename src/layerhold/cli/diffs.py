"""`changes`, `diff`, `diffsize`, `applydiff`, and `applydiff-using-staging-dir`, which is refused."""

from __future__ import annotations

import os
import sys

from layerhold.cli import output, progress
from layerhold.errors import LayerUnknown, PartialImagesDisabled, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.archive.changes import Change
    from layerhold.cli.flags import Given
    from layerhold.store import Store

_BLOCK = 256 << 10
_WORDS = (b"Modify", b"Add", b"Delete")
_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')  # what stands for itself between quotes


def changes(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Say what a layer changes, against its parent or another layer."""
    with progress.shown() as report:
        found = store.layers[arguments[0]].changes(*arguments[1:], progress=report)
    if given.yes("json"):
        output.json([{"Path": os.fsdecode(change.path), "Kind": change.kind} for change in found] or None)
    else:
        output.raw_lines([_told(change) for change in found])
    return 0


def _told(change: Change) -> bytes:
    """Give the line of a change. Nearly all paths are plain, and there may be very many."""
    path = change.path
    if not path.translate(None, _PLAIN):
        return b'%b "%b"' % (_WORDS[change.kind], path)
    return _WORDS[change.kind] + b" " + os.fsencode(quoted(path.decode("utf-8", "surrogateescape")))


def diff(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Write a layer as a tar stream."""
    output.expect_much()
    elsewhere = bool(given.get("file")) or not sys.stdout.isatty()
    with (
        output.writing(given.get("file")) as out,
        progress.shown(wanted=elsewhere) as report,
        store.layers[arguments[0]].diff(*arguments[1:], compression=_compression(given), progress=report) as tar,
    ):
        while block := tar.read(_BLOCK):
            out.write(block)
        out.flush()
    return 0


def diffsize(store: Store, arguments: Sequence[str], _given: Given) -> int:
    """Count the bytes of what differs."""
    with progress.shown() as report:
        size = store.layers[arguments[0]].diff_size(*arguments[1:], progress=report)
    output.line(output.size(size))
    return 0


def applydiff(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Unpack a tar stream over a layer."""
    output.expect_much()
    with output.reading(given.get("file")) as stream:
        layer = store.layers[arguments[0]]
        if layer.read_only:
            raise LayerUnknown(arguments[0])
        with progress.shown() as report:
            layer.apply(stream, progress=report)
    return 0


def applydiff_using_staging_dir(_store: Store, _arguments: Sequence[str], _given: Given) -> int:
    """Refuse, as Go's program does unless layers may be pulled in parts, which they never may here."""
    raise PartialImagesDisabled(hint="applydiff unpacks a tar stream over a layer")


def _compression(given: Given) -> int | None:
    """Give the code of the compression that is asked for; None: as the layer came in."""
    for flag, code in (("gzip", 2), ("bzip2", 1), ("xz", 3), ("uncompressed", 0)):
        if given.yes(flag):
            return code
    return None
