"""Results as tables: one of all jobs with their goals, and those that show how cost grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contestants import GO, OURS
from benchmarks.goals import MIB, Ratio, faster, fastest_go
from benchmarks.measure import median

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.measure import Sample
    from benchmarks.results import Results, Row

HEADING = (
    "| job | ours (least–most) | CPU | memory | "
    + " | ".join(f"÷ {version} (least–most)" for version in GO)
    + " | the faster | others | goal |"
)
RULE = "|---" * (HEADING.count("|") - 1) + "|"


def line(row: Row) -> str:
    """Give the line of one row."""
    ours = row.samples[row.ours]
    middle = median(ours)
    cells = [row.name, seconds(ours), f"{time(middle.cpu)}", f"{middle.memory / MIB:.0f} MiB"]
    cells += [_against(row, faster(row.samples, version)) for version in GO]
    best = fastest_go(row.samples)
    cells.append(f"**{Ratio.of(row.samples[best], ours).middle:.2f}×**" if best else "")
    cells.append("; ".join(f"{name} {time(median(taken).wall)}" for name, taken in _others(row)))
    cells.append("; ".join(f"{v.wanted}: {v.measured} {'✓' if v.reached else '✗'}" for v in row.verdicts))
    return f"| {' | '.join(cells)} |"


def _against(row: Row, other: str | None) -> str:
    if other is None:
        return ""
    ratio = Ratio.of(row.samples[other], row.samples[row.ours])
    return f"{ratio.middle:.2f}× ({ratio.least:.2f}–{ratio.most:.2f})"


def _others(row: Row) -> Iterator[tuple[str, Sequence[Sample]]]:
    """Give those of a row that are neither ours nor a Go program."""
    for name, taken in row.samples.items():
        if name != row.ours and name.partition(" ")[0] not in GO:
            yield name, taken


def seconds(samples: Sequence[Sample]) -> str:
    """Give the median, the least and the greatest wall time."""
    walls = [sample.wall for sample in samples]
    return f"{time(median(samples).wall)} ({time(min(walls))}–{time(max(walls))})"


def time(taken: float) -> str:
    """Give a time in the unit that suits it."""
    return f"{taken:.2f} s" if taken >= 1 else f"{taken * 1000:.{0 if taken >= 0.1 else 1}f} ms"


def growth(results: Results) -> list[str]:
    """Give the lines of the tables that show how cost grows: of layers in the store, of files in a layer."""
    lines = []
    for of in ("layers", "files"):
        rows = [row for row in results.rows if row.series and row.series.of == of]
        if not rows:
            continue
        counts = sorted({row.series.size for row in rows if row.series})
        lines += ["", f"| {of}: | | {' | '.join(f'{count:,}' for count in counts)} |", "|---" * (2 + len(counts)) + "|"]
        for what in dict.fromkeys(row.series.what for row in rows if row.series):
            of_what = {row.series.size: row for row in rows if row.series and row.series.what == what}
            lines += [_growing(name, what, of_what, counts) for name in (OURS, GO[0])]
    return lines


def _growing(name: str, what: str, rows: dict[int, Row], counts: Sequence[int]) -> str:
    cells = [what if name == OURS else "", name]
    for count in counts:
        taken = rows[count].samples.get(name) if count in rows else None
        cells.append(f"{time(median(taken).wall)}, {median(taken).memory / MIB:.0f} MiB" if taken else "")
    return f"| {' | '.join(cells)} |"


def summary(results: Results) -> str:
    """Say how many goals were reached."""
    verdicts = [verdict for row in results.rows for verdict in row.verdicts]
    return f"{sum(verdict.reached for verdict in verdicts)} of {len(verdicts)} goals reached"
