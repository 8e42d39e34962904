"""What a recorded disk may hold after the power is lost at some moment of its log.

All that was written before the last flush is there. Of what was written since, a disk with a cache may have kept any
part, in whatever order it came: each block of 4 KiB has been written or not, by the dice. (A block that was written
twice has the old, the first or the second content; the second over the first is the same as the second alone.)
"""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.recorded_disk import RecordedDisk, copy_sparse, read_log

_BLOCK = 4096
Kept = Callable[[random.Random, float], bool]  # is a block kept, that is so far (0 to 1) on from the last flush?

# What a disk keeps of the blocks that were written since the last flush.
KEEPING: dict[str, Kept] = {
    "half": lambda dice, _when: dice.random() < 0.5,
    "nothing": lambda _dice, _when: False,
    "all": lambda _dice, _when: True,
    "the latest": lambda dice, when: dice.random() < when,
    "the earliest": lambda dice, when: dice.random() > when,
}


class Replay:
    """The disk at one moment after the other; moments are lengths of the log, and only get later."""

    def __init__(self, disk: RecordedDisk, folder: Path) -> None:
        self._entries = read_log(disk.log)
        self._ends = [entry.end for entry in self._entries]
        self._flushes = [number for number, entry in enumerate(self._entries) if entry.data is None]
        self._sure = folder / "sure"  # what is on the disk whatever happens, up to the entry `_done`
        self._image = folder / "image"
        self._done = 0
        copy_sparse(disk.base, self._sure)

    def moments(self, after: int, until: int) -> list[int]:
        """Give the moments at which something was done to the disk, after one moment and up to another."""
        return self._ends[bisect_right(self._ends, after) : bisect_right(self._ends, until)]

    @contextmanager
    def image(self, moment: int, keeping: str, dice: random.Random) -> Iterator[Path]:
        """Make the image of a disk that lost its power at `moment`."""
        end = bisect_right(self._ends, moment)
        before = bisect_right(self._flushes, end - 1)
        flushed = self._flushes[before - 1] if before else 0
        assert flushed >= self._done, "moments only get later"
        self._write(self._sure, self._blocks(self._done, flushed))
        self._done = flushed
        copy_sparse(self._sure, self._image)
        try:
            blocks = list(self._blocks(flushed, end))
            kept = KEEPING[keeping]
            chosen = (block for number, block in enumerate(blocks) if kept(dice, (number + 0.5) / len(blocks)))
            self._write(self._image, chosen)
            yield self._image
        finally:
            self._image.unlink()

    def _blocks(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        for entry in self._entries[start:end]:
            if entry.data is not None:
                for at in range(0, len(entry.data), _BLOCK):
                    yield entry.offset + at, entry.data[at : at + _BLOCK]

    @staticmethod
    def _write(path: Path, blocks: Iterator[tuple[int, memoryview]]) -> None:
        fd = os.open(path, os.O_RDWR)
        try:
            for offset, data in blocks:
                os.pwrite(fd, data, offset)
        finally:
            os.close(fd)
