"""What came out: rows of samples and verdicts, as they are kept in a JSON file."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.goals import Verdict
from benchmarks.measure import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any


class Series(NamedTuple):
    """The place of a row among those that show how cost grows: what is done, what there is more of, how many."""

    what: str
    of: str
    size: int


@dataclass(frozen=True)
class Row:
    """One row of the table. The samples of all contestants were taken in turn.

    `to_reach` is how many times as fast as the Go programs ours is to be, 0 where that is no goal.
    """

    name: str
    ours: str
    samples: Mapping[str, Sequence[Sample]]
    verdicts: tuple[Verdict, ...] = ()
    series: Series | None = None
    to_reach: float = 0


@dataclass(frozen=True)
class Results:
    """All rows of a run, and on what it ran."""

    machine: str
    rounds: int
    rows: tuple[Row, ...]

    def write(self, path: Path) -> None:
        """Write a JSON file."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read one."""
        values = json.loads(path.read_text())
        return cls(values["machine"], values["rounds"], tuple(map(_row, values["rows"])))


def _row(values: Mapping[str, Any]) -> Row:
    samples = {name: [Sample(**sample) for sample in taken] for name, taken in values["samples"].items()}
    verdicts = tuple(Verdict(**verdict) for verdict in values["verdicts"])
    series = Series(*values["series"]) if values["series"] else None
    return Row(values["name"], values["ours"], samples, verdicts, series, values["to_reach"])


def machine() -> str:
    """Describe what this runs on, without naming it."""
    processors, linux = len(os.sched_getaffinity(0)), platform.release().partition("-")[0]
    return f"{processors} processors, Linux {linux}, Python {platform.python_version()}, ext4"
