"""What is to be reached, and whether it is: each goal is judged by the samples of one row."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contestants import GO
from benchmarks.measure import median

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.measure import Sample

    Samples = Mapping[str, Sequence[Sample]]

MIB = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """What was wanted, what was measured, and whether that will do."""

    wanted: str
    measured: str
    reached: bool


@dataclass(frozen=True)
class Ratio:
    """How many times as long one takes as the other: the median of the rounds, the least and the greatest."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, theirs: Sequence[Sample], ours: Sequence[Sample]) -> Ratio:
        """Compare what was measured in turn, round by round."""
        found = [their.wall / our.wall for their, our in zip(theirs, ours, strict=True)]
        return cls(statistics.median(found), min(found), max(found))


def faster(samples: Samples, version: str) -> str | None:
    """Give the way to run a Go program (without and with helpers) that took less; None: it was not measured."""
    ways = [name for name in samples if name.partition(" ")[0] == version]
    return min(ways, key=lambda name: median(samples[name]).wall, default=None)


def fastest_go(samples: Samples) -> str | None:
    """Give the Go program that took the least."""
    ways = [name for version in GO if (name := faster(samples, version))]
    return min(ways, key=lambda name: median(samples[name]).wall, default=None)


@dataclass(frozen=True)
class AtLeast:
    """So many times as fast as the faster of the Go programs, or as `over`."""

    times: float
    over: str = ""

    def judged(self, samples: Samples, ours: str) -> Verdict | None:
        """Give the verdict; None where there is nothing to compare with."""
        other = self.over or fastest_go(samples)
        if other is None or other not in samples:
            return None
        ratio = Ratio.of(samples[other], samples[ours]).middle
        wanted = f"at least {self.times:g}× as fast" + (f" as {self.over}" if self.over else "")
        return Verdict(wanted, f"{ratio:.2f}×", ratio >= self.times)


@dataclass(frozen=True)
class AtMost:
    """No more than so many times as long as `than` takes."""

    times: float
    than: str

    def judged(self, samples: Samples, ours: str) -> Verdict | None:
        """Give the verdict."""
        if self.than not in samples:
            return None
        ratio = Ratio.of(samples[ours], samples[self.than]).middle
        return Verdict(f"at most {self.times:g}× the {self.than}", f"{ratio:.2f}×", ratio <= self.times)


@dataclass(frozen=True)
class Above:
    """No more than so many seconds longer than `what` takes."""

    seconds: float
    what: str

    def judged(self, samples: Samples, ours: str) -> Verdict | None:
        """Give the verdict."""
        if self.what not in samples:
            return None
        pairs = zip(samples[ours], samples[self.what], strict=True)
        more = statistics.median(our.wall - other.wall for our, other in pairs)
        return Verdict(
            f"at most {self.seconds * 1000:g} ms above {self.what}", f"{more * 1000:.1f} ms", more <= self.seconds
        )


@dataclass(frozen=True)
class Memory:
    """A peak below 64 MiB, and 100 bytes for each entry."""

    entries: int

    def judged(self, samples: Samples, ours: str) -> Verdict:
        """Give the verdict."""
        limit, peak = 64 * MIB + 100 * self.entries, max(sample.memory for sample in samples[ours])
        return Verdict(f"under {limit / MIB:.0f} MiB", f"{peak / MIB:.0f} MiB", peak < limit)


@dataclass(frozen=True)
class Same:
    """As fast as `other`, within two parts of a hundred: the harness measures what it is to measure."""

    other: str

    def judged(self, samples: Samples, ours: str) -> Verdict:
        """Give the verdict."""
        ratio = Ratio.of(samples[self.other], samples[ours]).middle
        return Verdict("0.98–1.02×", f"{ratio:.3f}×", 0.98 <= ratio <= 1.02)


Goal = AtLeast | AtMost | Above | Memory | Same
