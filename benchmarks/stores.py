"""Jobs about the records of stores: single commands and many operations, in stores of few and of many layers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import contestants, measure
from benchmarks.contestants import BARE_PYTHON, OURS
from benchmarks.filled import filled, images_of, layer_id
from benchmarks.goals import Above, AtLeast
from benchmarks.jobs import Job, Part
from benchmarks.results import Series

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.contestants import Program
    from benchmarks.goals import Goal
    from benchmarks.jobs import Doing
    from benchmarks.measure import Sample

BATCH, LIBRARY = f"{OURS}, one batch", f"{OURS}, in Python"
FEW = 3
TIMES = 11  # runs of a short command in a round, of which the median counts
LISTED = 65 / 40  # open and list: 40 ms, where Go's program takes 65


# -- many operations of one process


def creating(count: int) -> Job:
    """Create and delete layers in one process, one by one and in a batch; and by a run of Go's program for each."""
    doing: dict[str, Doing] = {
        OURS: lambda fs: _inside(fs, count, "create", "delete"),
        BATCH: lambda fs: _inside(fs, count, "create_batch", "delete_batch"),
    }
    for program in contestants.go():
        doing[program.name] = functools.partial(_run_each, program, count)
    parts = [
        Part(f"{what} {count:,} layers, {how}", what, ours, goals=(AtLeast(times),))
        for what in ("create", "delete")
        for how, ours, times in (("one by one", OURS, 3), ("in one batch", BATCH, 20))
    ]
    return Job(f"create and delete {count:,} layers in one process", doing, tuple(parts))


def _inside(fs: Path, count: int, create: str, delete: str) -> dict[str, Sample]:
    taken = {"create": contestants.inside(fs, create, str(count))}
    assert len(contestants.ours().must(fs, "layers", "-q").split()) == count, "layers are missing"
    taken["delete"] = contestants.inside(fs, delete, str(count))
    assert not contestants.ours().must(fs, "layers", "-q"), "layers are left"
    return taken


def _run_each(program: Program, count: int, fs: Path) -> dict[str, Sample]:
    create = [program.on(fs, "create-layer", "-i", f"{number:064x}") for number in range(count)]
    delete = [program.on(fs, "delete-layer", f"{number:064x}") for number in range(count)]
    return {
        "create": measure.total(measure.runs(create, env=program.env)),
        "delete": measure.total(measure.runs(delete, env=program.env)),
    }


def mounting(times: int) -> Job:
    """Mount and unmount a layer in one process, and by a run of Go's program for each."""
    doing: dict[str, Doing] = {OURS: lambda fs: {"": contestants.inside(fs, "mount", layer_id(FEW - 1), str(times))}}
    for program in contestants.go():
        doing[program.name] = functools.partial(_mount_each, program, times)
    name = f"mount and unmount {times} times in one process"
    return Job(name, doing, (Part(name, goals=(AtLeast(2),)),), filled(FEW))


def _mount_each(program: Program, times: int, fs: Path) -> dict[str, Sample]:
    commands = [program.on(fs, word, layer_id(FEW - 1)) for _ in range(times) for word in ("mount", "unmount")]
    return {"": measure.total(measure.runs(commands, env=program.env))}


# -- single commands


def commanding(count: int) -> Job:
    """Run single commands in a store of so many layers; also open it and list them in Python."""
    doing: dict[str, Doing] = {
        program.name: functools.partial(_commands, program) for program in (contestants.ours(), *contestants.go())
    }
    doing[LIBRARY] = _listed
    names = {
        "create-layer": f"create-layer, {count:,} layers in the store",
        "delete-layer": f"delete-layer, {count:,} layers in the store",
        "layers": f"layers, {count:,} of them",
        "images": f"images, {images_of(count):,} of them, {count:,} layers in the store",
        "exists": f"exists, {count:,} layers in the store",
        "mount": f"mount, {count:,} layers in the store",
        "unmount": f"unmount, {count:,} layers in the store",
    }
    parts = [
        Part(name, part, goals=_goals(part, count), series=Series(part, "layers", count))
        for part, name in names.items()
    ]
    listed = (AtLeast(LISTED),) if count == 10_000 else ()
    parts.append(Part(f"open and list {count:,} layers in Python", "layers", LIBRARY, listed))
    return Job(f"commands with {count:,} layers in the store", doing, tuple(parts), filled(count))


def _goals(part: str, count: int) -> tuple[Goal, ...]:
    times = {
        ("create-layer", 1_000): 1,
        ("delete-layer", 1_000): 1,
        ("create-layer", 10_000): 2,
        ("delete-layer", 10_000): 2,
        ("layers", 10_000): 1.5,
        ("images", 10_000): 1.5,
    }.get((part, count))
    return (AtLeast(times),) if times else ()


def _commands(program: Program, fs: Path) -> dict[str, Sample]:
    program.must(fs, "layers")
    run = functools.partial(program.run, fs, times=TIMES)
    taken = {"layers": run("layers"), "images": run("images"), "exists": run("exists", layer_id(0))}
    pairs: dict[tuple[str, str], list[tuple[tuple[str, ...], tuple[str, ...]]]] = {
        ("create-layer", "delete-layer"): [
            (("-i", f"f{number:063x}"), (f"f{number:063x}",)) for number in range(TIMES)
        ],
        ("mount", "unmount"): [((layer_id(0),), (layer_id(0),))] * TIMES,
    }
    for (one, other), words in pairs.items():
        commands = [program.on(fs, *line) for first, second in words for line in ((one, *first), (other, *second))]
        samples = measure.runs(commands, env=program.env)
        taken[one], taken[other] = measure.median(samples[::2]), measure.median(samples[1::2])
    return taken


def _listed(fs: Path) -> dict[str, Sample]:
    contestants.ours().must(fs, "layers")
    return {"layers": measure.median([contestants.inside(fs, "listing") for _ in range(TIMES)])}


def starting() -> Job:
    """Start, do next to nothing, and end."""
    doing: dict[str, Doing] = {
        program.name: functools.partial(_start, program) for program in (contestants.ours(), *contestants.go())
    }
    doing[BARE_PYTHON] = lambda _fs: dict.fromkeys(("exists", "layers"), contestants.bare_python(TIMES * 2))
    goals = (Above(0.010, BARE_PYTHON),)
    parts = tuple(
        Part(f"start-up: {part}, {FEW} layers in the store", part, goals=goals) for part in ("exists", "layers")
    )
    return Job("start-up", doing, parts, filled(FEW))


def _start(program: Program, fs: Path) -> dict[str, Sample]:
    program.must(fs, "layers")
    run = functools.partial(program.run, fs, times=TIMES * 2)
    return {"exists": run("exists", layer_id(0)), "layers": run("layers")}
