"""One run of one command: wall time, processor time, peak memory, as the kernel counts them for a finished process."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Sample:
    """What one run took: seconds, seconds, bytes (of the largest process)."""

    wall: float
    cpu: float
    memory: int


def run(command: Sequence[str], *, env: Mapping[str, str], out: str = os.devnull) -> Sample:
    """Run the command with its output sent to `out`. Raises RuntimeError if it fails."""
    os.sync()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    began = time.perf_counter()
    child = os.posix_spawn(command[0], list(command), dict(env), file_actions=actions)
    _pid, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def median(samples: Sequence[Sample]) -> Sample:
    """Give the medians of each figure."""
    return Sample(
        statistics.median(sample.wall for sample in samples),
        statistics.median(sample.cpu for sample in samples),
        int(statistics.median(sample.memory for sample in samples)),
    )


def spread(samples: Sequence[Sample]) -> tuple[float, float]:
    """Give the least and the greatest wall time."""
    return min(sample.wall for sample in samples), max(sample.wall for sample in samples)
