"""A store on a disk that loses its power at any moment: what had returned is there and whole, and nothing else shows.

One run records what a store at work does to its disk (recorded_disk.py, random_work.py). Then the disk is brought back
as it may be after a loss of power at many moments of that run (replay.py), mounted, and looked at.

`python -m tests.crash.power` does this with one seed after the other for a while; see `--help`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import layerhold
from layerhold.damage import UNACCOUNTED, Report
from layerhold.errors import StorageError
from layerhold.linux import files, mounts
from tests import stores
from tests.crash import random_work, scenarios
from tests.crash.random_work import Done, State
from tests.crash.recorded_disk import MAKE, RecordedDisk, mounted, recording
from tests.crash.replay import KEEPING, Replay

DRIVERS = {filesystem: ("overlay", "vfs", *(("btrfs",) if filesystem == "btrfs" else ())) for filesystem in MAKE}
SYNCING = ("fsync", "fdatasync", "sync_file_range", "syncfs")
OPERATIONS = 40  # in a run
GO_LOOKS = 12  # at every so many-th point, Go's program looks as well


class Point(NamedTuple):
    """A loss of power: the length of the log, and what the disk keeps of what it had not flushed."""

    moment: int
    keeping: str


class Place(stores.Place):
    """A store on the disk; its run root is not on it, and is new each time, as after a reboot."""

    def __init__(self, folder: Path, driver: str) -> None:
        super().__init__(folder / "disk", driver)
        self.run = folder / "run"

    def open(self) -> layerhold.Store:
        return layerhold.Store.open(graphroot=self.root, runroot=self.run, driver=self.driver)


class Run:
    """One run of a store at work, recorded in `folder`."""

    def __init__(self, folder: Path, filesystem: str, driver: str, seed: int, operations: int = OPERATIONS) -> None:
        self.filesystem = filesystem
        self.driver = driver
        self.seed = seed
        self._folder = folder
        self._operations = operations
        self._place = Place(folder, driver)
        self.disk: RecordedDisk
        self.done: list[Done]

    def __str__(self) -> str:
        return f"{self.driver} on {self.filesystem}, seed {self.seed}"

    def record(self, while_at_work: AbstractContextManager[object]) -> None:
        """Do the operations, in the given context."""
        with recording(self._folder, self.filesystem) as self.disk, while_at_work:
            self.done = random_work.Work(self._place.open, self.disk, self.seed).run(self._operations)

    def failures(self, wanted: int) -> Iterator[str | None]:
        """Lose the power at so many moments, and say of each what was wrong then."""
        replay = Replay(self.disk, self._folder)
        dice = random.Random(self.seed)
        for number, point in enumerate(self._points(replay, wanted, dice)):
            with replay.image(point.moment, point.keeping, dice) as image:
                try:
                    with mounted(image, self._folder / "disk", self.filesystem):
                        self._look(point, go_too=number % GO_LOOKS == 0)
                except (AssertionError, ValueError, StorageError, OSError) as error:
                    yield f"{self}, {self._when(point)}: {type(error).__name__}: {error}"
                else:
                    yield None
                finally:
                    if self._place.run.exists():
                        stores.clear(self._place.run)

    def _points(self, replay: Replay, wanted: int, dice: random.Random) -> list[Point]:
        """Choose moments: when an operation has just returned, in the middle of one, anywhere."""
        moments = replay.moments(self.done[0].began, self.done[-1].ended)

        def within() -> int:
            one = dice.choice(self.done)
            return dice.choice(replay.moments(one.began, one.ended) or [one.ended])

        ways: list[Callable[[], int]] = [lambda: dice.choice(self.done).ended, within, lambda: dice.choice(moments)]
        return sorted(Point(ways[number % 3](), dice.choice(list(KEEPING))) for number in range(wanted))

    def _when(self, point: Point) -> str:
        for done in self.done:
            if point.moment < done.ended:
                return f"{done.what} under way at {point.moment}, {point.keeping} kept"
            if point.moment == done.ended:
                return f"after {done.what} at {point.moment}, {point.keeping} kept"
        return "at the end"

    def _possible(self, point: Point) -> tuple[list[State], frozenset[str]]:
        """Give what the store may show, and which layers may have left files behind."""
        last: list[State] = [{}]
        loose: frozenset[str] = frozenset()
        for done in self.done:
            if done.began >= point.moment:
                break
            if done.what == "batch":
                loose |= done.loose
            if done.ended > point.moment:
                return last + list(done.states), loose
            last = [done.states[-1]]
        return last, loose

    def _look(self, point: Point, *, go_too: bool) -> None:
        possible, loose = self._possible(point)
        for path in self._place.root.glob("*/*.json"):
            json.loads(path.read_text())
        store = self._place.open()
        try:
            state = random_work.observe(store)
            wrong = min((random_work.differences(state, wanted) for wanted in possible), key=len)
            assert not wrong, "; ".join(wrong)
            report = store.check(unreferenced_for=1e9)
            for id in loose & report.layers.keys():
                if all(problem.kind == UNACCOUNTED for problem in report.layers[id]):
                    del report.layers[id]
            assert report.ok, _told(report)
            store.collect_garbage()
            report = store.check(unreferenced_for=1e9)
            assert report.ok, f"after collecting garbage: {_told(report)}"
            assert random_work.observe(store) == state, "collecting garbage took something away, or brought it back"
            self._work_on(store)
            if go_too:
                listed = {item["id"] for item in self._place.go_json("layers")}
                assert listed == {layer.id for layer in store.layers}, "Go's program lists other layers"
        finally:
            store.shutdown()

    def _work_on(self, store: layerhold.Store) -> None:
        base = store.layers.create(diff=io.BytesIO(scenarios.layer_tar(1)))
        image = store.images.create(layer=base, data={"manifest": b"{}"})
        store.containers.create(image=image).delete()
        assert image.delete() == [base.id]


def _told(report: Report) -> str:
    kinds = (report.layers, report.images, report.containers)
    return "; ".join(f"{id}: {[p.sentence for p in found]}" for kind in kinds for id, found in kind.items())


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder in memory, where flushes cost nothing."""
    with stores.scratch("power") as folder:
        mounts.mount("tmpfs", str(folder), "tmpfs")
        yield folder


@contextmanager
def without(calls: Iterable[str]) -> Iterator[None]:
    """Have the store believe that it synced, when it has not."""
    with ExitStack() as stack:
        for call in calls:
            module = os if hasattr(os, call) else files
            stack.enter_context(mock.patch.object(module, call, return_value=None))
        yield


def main() -> int:
    """Work with one seed after the other; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0, help="how long to go on, with one seed after the other")
    parser.add_argument("--points", type=int, default=100, help="losses of power in each run (100)")
    parser.add_argument("--seed", type=int, help="the first seed (of the clock)")
    parser.add_argument("--filesystem", choices=MAKE, action="append", help="all")
    parser.add_argument("--driver", choices=DRIVERS["btrfs"], action="append", help="all")
    parser.add_argument("--without", choices=SYNCING, action="append", default=[], help="do not do this: must fail")
    args = parser.parse_args()
    os.environ.update(stores.QUIET)
    places = [
        (filesystem, driver)
        for filesystem in args.filesystem or MAKE
        for driver in DRIVERS[filesystem]
        if driver in (args.driver or DRIVERS[filesystem])
    ]
    end = time.monotonic() + args.seconds
    failed = 0
    for seed in count(int(time.time()) if args.seed is None else args.seed):
        for filesystem, driver in places:
            with scratch() as folder:
                run = Run(folder, filesystem, driver, seed)
                run.record(without(args.without))
                found = list(run.failures(args.points))
            failures = [failure for failure in found if failure]
            print(*failures, f"{run}: {len(found)} losses of power, {len(failures)} failures", sep="\n", flush=True)
            failed += len(failures)
        if time.monotonic() >= end:
            break
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
