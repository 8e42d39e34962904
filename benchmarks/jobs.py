"""What a job is: who does it, each on a file system of its own, and the rows of the table that come of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import scratch
from benchmarks.contestants import OURS
from benchmarks.goals import AtLeast
from benchmarks.results import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.goals import Goal
    from benchmarks.measure import Sample
    from benchmarks.results import Series

    # Prepares on a new file system, does the job, and gives what each part of it took.
    Doing = Callable[[Path], Mapping[str, Sample]]


@dataclass(frozen=True)
class Part:
    """A row to be: the part of the job that it is about, whose time counts as ours, what it is to reach.

    `only` are the contestants that it has besides ours; all if there are none.
    """

    row: str
    part: str = ""
    ours: str = OURS
    goals: tuple[Goal, ...] = ()
    series: Series | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """`filled` makes what is on the file systems of all contestants at the start. `turns` are taken in each round.

    `memory` bytes are touched before each doing: several times what it writes, and what it may need besides.
    """

    name: str
    contestants: Mapping[str, Doing]
    parts: tuple[Part, ...]
    filled: Callable[[Path], object] | None = None
    turns: int = 1
    memory: int = scratch.RESERVE

    def measured(self, rounds: int, work: Path) -> Iterator[Row]:
        """Let all do the job in turn, `rounds` times, and give the rows."""
        taken: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
        with scratch.image(work, self.filled) as image:
            for number in range(rounds * self.turns):
                for name in self._in_turn(number):
                    with scratch.mounted_copy(image) as fs:
                        scratch.warm_memory(self.memory)
                        for part, sample in self.contestants[name](fs).items():
                            taken[name][part].append(sample)
        for row in self.parts:
            yield self._row(row, taken)

    def _in_turn(self, number: int) -> list[str]:
        """Give the contestants, another one first each time."""
        names = list(self.contestants)
        first = number % len(names)
        return names[first:] + names[:first]

    def _row(self, part: Part, taken: Mapping[str, Mapping[str, list[Sample]]]) -> Row:
        samples = {name: parts[part.part] for name, parts in taken.items() if part.part in parts}
        # Ways of ours are rows apart.
        others = [name for name in samples if name in part.only or not (part.only or name.startswith(OURS))]
        shown = {name: samples[name] for name in (part.ours, *others) if name in samples}
        verdicts = [verdict for goal in part.goals if (verdict := goal.judged(shown, part.ours))]
        to_reach = max((goal.times for goal in part.goals if isinstance(goal, AtLeast) and not goal.over), default=0)
        return Row(part.row, part.ours, shown, tuple(verdicts), part.series, to_reach)
