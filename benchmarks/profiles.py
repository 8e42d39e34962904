"""Where the time goes: `python -m benchmarks.profiles`, as root, writes docs/profiles.md.

Each command is run as it is, for its wall and processor time, and under the profiler of the standard library, in a
process of its own. What only reads has been run once before, so that its files are in memory, as where it is measured.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import contestants, scratch
from benchmarks.filled import filled
from tests import inputs, programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PAGE = Path(__file__).resolve().parent.parent / "docs/profiles.md"
MOST = 14  # functions that are listed
_HEAD = """# Profiles

Where the time goes in the commands that [performance.md](performance.md) measures, mostly those that are to become
faster still. Written by `python -m benchmarks.profiles`.

The time of a function is what it takes in itself, and with what it calls. The profiler sees the main thread alone,
which writes files and holds the interpreter longest. It makes each call dearer: its figures say what is large beside
what, and not how long it takes.
"""
_PROFILED = """
import cProfile, os, pstats, sys
from layerhold.cli.main import main
out, *words = sys.argv[1:]
profile = cProfile.Profile()
profile.runcall(main, words)
sys.stdout.flush()
rows = []
for (file, line, name), (_primitive, calls, own, total, _callers) in pstats.Stats(profile).stats.items():
    place = file.partition("layerhold/")[2] or os.path.basename(file)
    rows.append((own, total, calls, name.strip("<>") if file == "~" else f"{place}:{name}"))
with open(out, "w") as page:
    for own, total, calls, name in sorted(rows, reverse=True)[:MOST]:
        print(f"| `{name}` | {calls:,} | {own * 1000:.0f} | {total * 1000:.0f} |", file=page)
""".replace("MOST", str(MOST))


class Command(NamedTuple):
    """A command that is looked at: on a store that `fill` makes, or an empty one."""

    name: str
    words: tuple[str, ...]
    fill: Callable[[Path], object]
    only_reads: bool = True


def commands() -> Iterator[Command]:
    """Give all commands."""
    kinds = {"Debian root": inputs.rootfs(), "small files": inputs.small(), "large files": inputs.big()}
    for name, tars in kinds.items():
        yield Command(f"apply {name}, plain", ("import-layer", "-f", str(tars.tar)), _empty, only_reads=False)
    small = str(kinds["small files"].tar)
    yield Command("diff out, small files", ("diff", "-u", "-f", "/dev/null", "x"), _with_layer(small))
    anew = _with_layer(small, forget=True)
    yield Command("diff generated, small files", ("diff", "-u", "-f", "/dev/null", "x"), anew)
    yield Command("changes, small files", ("changes", "x"), anew)
    yield Command("diff size, small files", ("diffsize", "x"), anew)
    for words in (("create-layer", "-i", "f" * 64), ("layers",), ("images",)):
        reads = words[0] != "create-layer"
        yield Command(f"{words[0]}, 10,000 layers in the store", words, filled(10_000), only_reads=reads)


def _empty(fs: Path) -> None:
    contestants.ours().must(fs, "layers")


def _with_layer(tar: str, *, forget: bool = False) -> Callable[[Path], object]:
    def fill(fs: Path) -> None:
        contestants.ours().must(fs, "import-layer", "-n", "x", "-f", tar)
        if forget:
            for split in (fs / "graph/overlay-layers").glob("*.tar-split.gz"):
                split.unlink()

    return fill


def described(command: Command, work: Path) -> str:
    """Run a command twice, each time on a file system of its own, and say what it took."""
    with scratch.image(work, command.fill) as image:
        with scratch.mounted_copy(image) as fs:
            program = contestants.ours()
            _warm(command, fs)
            wall, user, system = _timed(program.on(fs, *command.words), program.env)
        with scratch.mounted_copy(image) as fs:
            _warm(command, fs)
            out = fs / "profile"
            words = [*program.on(fs, *command.words)[1:]]
            subprocess.run(
                [sys.executable, "-I", "-c", _PROFILED, str(out), *words],
                env=dict(program.env), check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            rows = out.read_text()
    return (
        f"\n## {command.name}\n\n"
        f"{wall:.0f} ms; processor: {user:.0f} ms in the program, {system:.0f} ms in the kernel.\n\n"
        f"| function | calls | ms in itself | with what it calls |\n| --- | ---: | ---: | ---: |\n{rows}"
    )


def _warm(command: Command, fs: Path) -> None:
    if command.only_reads:
        subprocess.run(
            contestants.ours().on(fs, *command.words), env=contestants.bare(), check=True, stdout=subprocess.DEVNULL
        )


def _timed(words: list[str], env: Mapping[str, str]) -> tuple[float, float, float]:
    """Run a command: milliseconds on the clock, in programs and in the kernel."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, env=dict(env), check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall * 1000, (after.ru_utime - before.ru_utime) * 1000, (after.ru_stime - before.ru_stime) * 1000


def main() -> None:
    """Look at all commands, and write the page."""
    if os.geteuid() != 0:
        sys.exit("profiles need root: overlay, and a new file system for each run")
    work = programs.WORK / "bench"
    work.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(_HEAD + "".join(described(command, work) for command in commands()))


if __name__ == "__main__":
    main()
