"""Runs of commands: wall time, processor time, peak memory, as the kernel counts them for finished processes."""

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
    """What something took: seconds, seconds, bytes (of the largest process)."""

    wall: float
    cpu: float
    memory: int


# The kernel counts the peak of whoever starts a program as the program's own, so a small process starts it. It reads
# commands with NUL between the words and "record separator" between two commands, and prints a line for each.
_STARTER = r"""
import os, sys, time
out = sys.argv[1]
actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
           (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
for command in [line.split("\0") for line in sys.stdin.read().split("\x1e")]:
    began = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - began
    print(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
    if status:
        sys.exit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
"""


def runs(commands: Sequence[Sequence[str]], *, env: Mapping[str, str], out: str = os.devnull) -> list[Sample]:
    """Run commands, whose programs are paths, one after another, with what they print sent to `out`.

    Raises CalledProcessError if one fails.
    """
    os.sync()
    words = [sys.executable, "-I", "-S", "-c", _STARTER, out]
    given = "\x1e".join("\0".join(command) for command in commands)
    done = subprocess.run(words, env=dict(env), check=True, stdout=subprocess.PIPE, input=given, text=True)
    figures = [line.split() for line in done.stdout.splitlines()]
    return [Sample(float(wall), float(cpu), int(memory)) for wall, cpu, memory in figures]


def run(command: Sequence[str], *, env: Mapping[str, str]) -> Sample:
    """Run one command."""
    return runs([command], env=env)[0]


def repeated(command: Sequence[str], times: int, *, env: Mapping[str, str]) -> Sample:
    """Run a short command several times, and give the medians."""
    return median(runs([command] * times, env=env))


def total(samples: Sequence[Sample]) -> Sample:
    """Give what runs one after another took together."""
    return Sample(
        sum(sample.wall for sample in samples),
        sum(sample.cpu for sample in samples),
        max(sample.memory for sample in samples),
    )


def median(samples: Sequence[Sample]) -> Sample:
    """Give the medians of each figure."""
    return Sample(
        statistics.median(sample.wall for sample in samples),
        statistics.median(sample.cpu for sample in samples),
        int(statistics.median(sample.memory for sample in samples)),
    )
