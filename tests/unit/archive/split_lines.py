"""Lines of tar-split files, made by calls, and put together again."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

from layerhold.archive.assemble import assemble
from layerhold.archive.split import SplitWriter
from tests import stores


def lines_of(*calls: tuple[Any, ...]) -> bytes:
    lines: list[bytes] = []
    writer = SplitWriter(lines.append)
    for call in calls:
        if len(call) == 1:
            writer.segment(call[0])
        else:
            writer.file(*call)
    writer.close()
    return b"".join(lines)


def put_together(tmp_path: Path, lines: bytes) -> bytes:
    """Assemble from `lines` and the files below `tmp_path`; no descriptor may stay open."""
    (tmp_path / "split.gz").write_bytes(gzip.compress(lines))
    before = len(stores.descriptors())

    def opened(name: bytes) -> int:
        return os.open(os.fsencode(tmp_path) + b"/" + name, os.O_RDONLY | os.O_NONBLOCK)

    try:
        return b"".join(assemble(str(tmp_path / "split.gz"), opened))
    finally:
        assert len(stores.descriptors()) == before
