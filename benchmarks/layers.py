"""Jobs about the files of layers: bringing them in, writing them out, comparing them, copying them for other owners."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import contestants, scratch
from benchmarks.contestants import FLOOR, GO, OURS
from benchmarks.goals import AtLeast, AtMost, Memory, Same
from benchmarks.jobs import Job, Part
from benchmarks.results import Series
from tests import inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.contestants import Program
    from benchmarks.goals import Goal
    from benchmarks.jobs import Doing
    from benchmarks.measure import Sample
    from tests.inputs import Input

AGAIN, IN_TURN = f"{OURS} again", "one after another"
FORMS = {".tar": "plain", ".gz": "gz", ".zst": "zst"}
COPIED = {"_CONTAINERS_OVERLAY_DISABLE_IDMAP": "yes"}
MAP = "0:100000:80000"


class Layer(NamedTuple):
    """A layer to measure with: what it is called, and its tars."""

    name: str
    tars: Input


@functools.cache
def digest(tar: Path) -> str:
    """Give the SHA-256 of a file."""
    with tar.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def memory(tar: Path) -> int:
    """Say how much memory bringing in a plain tar may want, with the kernel's copies of what is read and written."""
    return max(scratch.RESERVE, 4 * tar.stat().st_size)


@functools.cache
def entries(tar: Path) -> int:
    """Count the entries of a tar."""
    with tarfile.open(tar) as members:
        return sum(1 for _ in members)


# -- bringing in


def applying(layer: Layer) -> Iterator[Job]:
    """Bring a layer into an empty store, in each of its forms."""
    goals = (AtLeast(2), AtMost(1.5, FLOOR), Memory(entries(layer.tars.tar)))
    for tar in layer.tars:
        name = f"apply {layer.name}, {FORMS[tar.suffix]}"
        programs = [contestants.ours(), *contestants.go(helped=tar.suffix != ".tar")]
        doing: dict[str, Doing] = {
            program.name: functools.partial(_apply, program, tar, layer.tars.tar) for program in programs
        }
        doing[FLOOR] = functools.partial(_floor, tar, layer.tars.tar)
        yield Job(name, doing, (Part(name, goals=goals),), memory=memory(layer.tars.tar))


def _apply(program: Program, tar: Path, plain: Path, fs: Path) -> dict[str, Sample]:
    program.must(fs, "layers")
    sample = program.run(fs, "import-layer", "-f", str(tar))
    _check_record(fs, plain)
    return {"": sample}


def _floor(tar: Path, plain: Path, fs: Path) -> dict[str, Sample]:
    sample = contestants.floor(fs, tar)
    assert digest(plain) in (fs / "digests").read_text(), "the floor hashed something else"
    return {"": sample}


def _check_record(fs: Path, plain: Path) -> None:
    (record,) = json.loads((fs / "graph/overlay-layers/layers.json").read_text())
    assert record["diff-digest"] == f"sha256:{digest(plain)}", "another layer was made"


def itself(layer: Layer) -> Job:
    """Measure our program against itself: the ratio is 1, or no other one is to be believed."""
    program = contestants.ours()
    doing = functools.partial(_apply, program, layer.tars.tar, layer.tars.tar)
    part = Part(f"{OURS} against itself", goals=(Same(AGAIN),), only=(AGAIN,))
    return Job("itself", {OURS: doing, AGAIN: doing}, (part,), turns=3)


def at_once(tars: list[Path]) -> Job:
    """Bring in eight layers by threads of one process, and one after another."""
    words = [str(tar) for tar in tars]
    doing: dict[str, Doing] = {
        OURS: lambda fs: {"": contestants.inside(fs, "at_once", *words)},
        IN_TURN: lambda fs: {"": contestants.inside(fs, "one_by_one", *words)},
    }
    name = "eight layers at once, by threads"
    return Job(name, doing, (Part(name, goals=(AtLeast(1.6, IN_TURN),)),), memory=2 << 30)


# -- writing out and comparing


def comparing(layer: Layer) -> Job:
    """Write a layer out, as it came in and anew; say what it changes, and how much."""
    large = layer.name == "large files"
    parts = [Part(f"diff out, {layer.name}", "diff", goals=(AtLeast(4 if large else 2), Memory(0)))]
    if not large:
        goals: tuple[Goal, ...] = (AtLeast(2),) if layer.name == "small files" else ()
        anew = ("diff generated", "changes", "diff size")
        parts += [Part(f"{part}, {layer.name}", part, goals=goals) for part in anew]
    programs = [contestants.ours(), *contestants.go()]
    doing: dict[str, Doing] = {
        program.name: functools.partial(_compare, program, layer.tars.tar) for program in programs
    }
    return Job(
        f"diff out, diff generated, changes, diff size, {layer.name}",
        doing,
        tuple(parts),
        memory=memory(layer.tars.tar),
    )


def _compare(program: Program, tar: Path, fs: Path) -> dict[str, Sample]:
    program.must(fs, "import-layer", "-n", "x", "-f", str(tar))
    out = program.run(fs, "diff", "-u", "-f", "/dev/null", "x")
    _check_diff(program, tar, fs)
    taken = {"diff": out, "changes": program.run(fs, "changes", "x"), "diff size": program.run(fs, "diffsize", "x")}
    _forget_split(fs)
    return {**taken, "diff generated": program.run(fs, "diff", "-u", "-f", "/dev/null", "x")}


def _check_diff(program: Program, tar: Path, fs: Path) -> None:
    with subprocess.Popen(program.on(fs, "diff", "-u", "x"), env=dict(program.env), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = hashlib.file_digest(process.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
    assert found == digest(tar), f"{program.name} wrote something else"


def _forget_split(fs: Path) -> None:
    """Remove what a layer is put together from again, so that it is written anew from its files."""
    (split,) = (fs / "graph/overlay-layers").glob("*.tar-split.gz")
    split.unlink()


def growing(count: int, tar: Path) -> Job:
    """Do the same with a layer of so many files."""
    what = {"apply": "apply", "diff": "diff out", "changes": "changes", "diff size": "diff size", "delete": "delete"}
    parts = tuple(
        Part(f"{name}, {count:,} files", part, series=Series(name, "files", count)) for part, name in what.items()
    )
    programs = [contestants.ours(), *contestants.go(versions=GO[:1])]
    doing: dict[str, Doing] = {program.name: functools.partial(_grow, program, tar) for program in programs}
    return Job(f"growth: {count:,} files", doing, parts, memory=memory(tar))


def _grow(program: Program, tar: Path, fs: Path) -> dict[str, Sample]:
    program.must(fs, "layers")
    return {
        "apply": program.run(fs, "import-layer", "-n", "x", "-f", str(tar)),
        "diff": program.run(fs, "diff", "-u", "-f", "/dev/null", "x"),
        "changes": program.run(fs, "changes", "x"),
        "diff size": program.run(fs, "diffsize", "x"),
        "delete": program.run(fs, "delete-layer", "x"),
    }


# -- other owners


def mapping(layer: Layer, driver: str) -> Job:
    """Make a container with ID maps, whose layer gets its owners by a copy.

    On overlay 1.43 does not know the setting that asks for a copy, and makes none.
    """
    name = f"ID-mapped copy, {layer.name}, {driver}"
    versions = GO[:1] if driver == "overlay" else GO
    doing: dict[str, Doing] = {
        program.name: functools.partial(_map, program, layer.tars.tar, driver)
        for program in (contestants.ours(), *contestants.go(versions=versions))
    }
    return Job(name, doing, (Part(name, goals=(AtLeast(2),)),))


def _map(program: Program, tar: Path, driver: str, fs: Path) -> dict[str, Sample]:
    copying = contestants.Program(program.name, program.path, {**program.env, **COPIED})
    layer = copying.must(fs, "import-layer", "-f", str(tar), driver=driver).split()[0]
    copying.must(fs, "create-image", "-n", "x", layer, driver=driver)
    sample = copying.run(fs, "create-container", "--uidmap", MAP, "--gidmap", MAP, "x", driver=driver)
    _check_owners(fs / "graph" / driver)
    return {"": sample}


def _check_owners(place: Path) -> None:
    first = int(MAP.split(":")[1])
    found = subprocess.run(
        ["find", str(place), "-uid", f"+{first - 1}", "-printf", "."], capture_output=True, check=True
    )
    assert len(found.stdout) > inputs.SMALL_FILES, "nothing was copied for other owners"
