"""Run the benchmarks as root: `python -m benchmarks [--rounds N] [--only WORD] [--quick] [--json FILE]`.

Each job is done by all contestants in turn, each time on a new file system. A ratio is the Go program's wall time over
ours, the median of the rounds: 2.0 means that ours takes half. The exit status says only whether everything ran.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import layers, results, stores, table
from benchmarks.layers import Layer
from tests import inputs, programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.jobs import Job


class Scale(NamedTuple):
    """How much is measured."""

    large: bool
    operations: int
    mounts: int
    layers: Sequence[int]
    files: Sequence[int]


FULL = Scale(True, 1_000, 100, (10, 100, 1_000, 10_000), (1_000, 10_000, 30_000, 100_000, 300_000))
QUICK = Scale(False, 50, 10, (10, 100), (1_000,))


def main() -> int:
    """Measure, and print each row when it is there."""
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("the benchmarks need root: overlay, and a new file system for each run")
    work = Path(options.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    # Whatever is to be fetched or made is there before anything is measured.
    found = [job for job in jobs(QUICK if options.quick else FULL) if options.only in job.name]
    if not found:
        sys.exit(f"no job has {options.only!r} in its name")
    rounds = options.rounds or (1 if options.quick else 5)
    print(table.HEADING, table.RULE, sep="\n", flush=True)
    rows = []
    for job in found:
        for row in job.measured(rounds, work):
            rows.append(row)
            print(table.line(row), flush=True)
        done = results.Results(results.machine(), rounds, tuple(rows))
        if options.json:
            done.write(Path(options.json))
    print(*table.growth(done), "", table.summary(done), sep="\n")
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=0, help="how often each takes its turn (5; 1 if quick)")
    parser.add_argument("--only", default="", metavar="WORD", help="only jobs with this in their name")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--json", default="", metavar="FILE", help="write all samples to this file")
    parser.add_argument("--work", default=programs.WORK / "bench", help="where the file systems are made")
    return parser.parse_args()


def jobs(scale: Scale) -> Iterator[Job]:
    """Make all jobs."""
    root, small = Layer("Debian root", inputs.rootfs()), Layer("small files", inputs.small())
    kinds = [root, small, *([Layer("large files", inputs.big())] if scale.large else [])]
    yield layers.itself(root)
    for layer in kinds:
        yield from layers.applying(layer)
    yield layers.at_once(inputs.eight())
    yield from map(layers.comparing, kinds)
    for driver in ("overlay", "vfs"):
        yield layers.mapping(small, driver)
    yield stores.starting()
    yield stores.mounting(scale.mounts)
    yield stores.creating(scale.operations)
    yield from map(stores.commanding, scale.layers)
    for count in scale.files:
        yield layers.growing(count, inputs.of_files(count))


if __name__ == "__main__":
    sys.exit(main())
