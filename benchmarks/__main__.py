"""Run the benchmarks: `python -m benchmarks [--rounds N] [--only WORD] [--json FILE]`, as root.

Each round of each job gives every program a new file system, the programs one after another. A ratio is the Go
program's median over ours: 2.0 means that ours takes half. The Go programs run without pigz and zstd in their PATH,
with which they are slower.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import jobs, measure, scratch
from tests import inputs, programs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.jobs import Job, Program
    from benchmarks.measure import Sample

Samples = dict[str, list["Sample"]]
OURS = "layerhold"
PEERS = ("1.64", "1.43")


def main() -> int:
    """Measure, print the table; the exit status says only whether everything ran."""
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("the benchmarks need root: overlay, and a new file system for each run")
    work = Path(options.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    scratch.warm_memory()
    rows = {}
    print(heading(), flush=True)
    for job in chosen(options.only):
        rows[job.name] = measured(job, options.rounds, work)
        print(row(job.name, rows[job.name]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(as_json(rows), indent=1))
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each program for each job")
    parser.add_argument("--only", default="", help="only jobs with this word in their name")
    parser.add_argument("--json", default="", help="write all samples to this file")
    parser.add_argument("--work", default=".work/bench", help="where the file systems are made")
    return parser.parse_args()


def peers() -> list[Program]:
    """Ours, and the Go programs."""
    bare = {"PATH": programs.bare_path(), "HOME": "/root"}
    ours = jobs.Program(OURS, (str(Path(sys.executable).with_name("layerhold")),), bare)
    return [ours, *(jobs.Program(version, (programs.storage(version),), bare) for version in PEERS)]


def chosen(word: str) -> list[Job]:
    """Make the jobs whose name has `word` in it."""
    layers = {"base": inputs.rootfs(), "small": inputs.small()}
    found = [
        *(jobs.applying(f"{name} {path.suffix}", path) for name, layer in layers.items() for path in layer),
        *(jobs.diffing(name, layer.tar) for name, layer in layers.items()),
        *(jobs.comparing(name, layer.tar) for name, layer in layers.items()),
        jobs.listing(10_000),
        jobs.starting(),
    ]
    return [job for job in found if word in job.name]


def measured(job: Job, rounds: int, work: Path) -> Samples:
    """Run one job `rounds` times for each program, in turn."""
    samples: Samples = defaultdict(list)
    for _ in range(rounds):
        for program in peers():
            with scratch.fresh_filesystem(work) as fs:
                words = job.prepare(program, fs)
                samples[program.name].append(measure.run(program.on(fs, *words), env=program.env))
    return samples


def heading() -> str:
    """Give the table's first lines."""
    columns = " | ".join(f"÷ {peer}: wall | CPU | memory" for peer in PEERS)
    return f"| job | ours: wall (least–most) | CPU | memory | {columns} |\n|{'---|' * (4 + 3 * len(PEERS))}"


def row(name: str, samples: Samples) -> str:
    """Give the line of one job."""
    ours = measure.median(samples[OURS])
    least, most = measure.spread(samples[OURS])
    cells = [name, f"{ours.wall:.3f} s ({least:.3f}–{most:.3f})", f"{ours.cpu:.3f} s", f"{ours.memory / 2**20:.0f} MiB"]
    for peer in PEERS:
        theirs = measure.median(samples[peer])
        cells += [
            f"**{theirs.wall / ours.wall:.2f}×**",
            f"{theirs.cpu / ours.cpu:.2f}×",
            f"{theirs.memory / ours.memory:.2f}×",
        ]
    return f"| {' | '.join(cells)} |"


def as_json(rows: dict[str, Samples]) -> dict[str, dict[str, Sequence[dict[str, float]]]]:
    """Give every sample as plain data."""
    return {
        job: {program: [vars(sample) for sample in taken] for program, taken in samples.items()}
        for job, samples in rows.items()
    }


if __name__ == "__main__":
    sys.exit(main())
