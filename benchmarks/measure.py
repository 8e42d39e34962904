"""One run of one command: wall time, processor time, peak memory, as the kernel counts them for a finished process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
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


# The kernel counts the peak of whoever starts a program as the program's own, so a small process starts it.
_STARTER = """
import os, sys, time
out, command = sys.argv[1], sys.argv[2:]
actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
           (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
began = time.perf_counter()
child = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
_, status, usage = os.wait4(child, 0)
wall = time.perf_counter() - began
print(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
sys.exit(status != 0)
"""


def run(command: Sequence[str], *, env: Mapping[str, str], out: str = os.devnull) -> Sample:
    """Run the command with its output sent to `out`. Raises CalledProcessError if it fails."""
    os.sync()
    words = [sys.executable, "-I", "-S", "-c", _STARTER, out, *command]
    done = subprocess.run(words, env=dict(env), check=True, stdout=subprocess.PIPE, text=True)
    wall, cpu, memory = done.stdout.split()
    return Sample(float(wall), float(cpu), int(memory))


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
