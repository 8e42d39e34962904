"""A bar for each job: how many times as long the faster Go program takes as ours. `python -m benchmarks.chart FILE`.

Bars have the scale of ratios, where twice as fast is as far from 1 as half as fast is, so that none looks better than
it is. A stroke across a bar is where its goal lies; a bar that does not reach it has another colour.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from benchmarks.goals import Ratio, fastest_go
from benchmarks.results import Results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Row

PLACE = Path(__file__).resolve().parent.parent / "docs/performance.svg"
WIDTH, NAMES, RIGHT, TOP, LINE, BAR = 860, 330, 60, 46, 22, 14
FASTER, SLOWER, GOAL, GRID, INK = "#2f7d5b", "#b5651d", "#1d1d1f", "#d5d5da", "#3a3a3f"
TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


class Bar(NamedTuple):
    """One bar: a job, how many times as fast ours is, how many it is to be; 0: its goal is another one, or none."""

    name: str
    ratio: float
    goal: float


def main() -> int:
    """Draw the chart of a file of results."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    PLACE.write_text(drawn(Results.read(Path(sys.argv[1]))))
    return 0


def bars(results: Results) -> list[Bar]:
    """Give a bar for each row that the Go programs are in; those that only show growth are left to the table."""
    return [bar for row in results.rows if (bar := _bar(row)) and (bar.goal or row.series is None)]


def _bar(row: Row) -> Bar | None:
    go = fastest_go(row.samples)
    if go is None:
        return None
    ratio = Ratio.of(row.samples[go], row.samples[row.ours]).middle
    return Bar(row.name, ratio, row.to_reach)


def drawn(results: Results) -> str:
    """Give the chart as SVG."""
    shown = bars(results)
    ticks = _ticks(shown)
    height = TOP + LINE * len(shown) + 14
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" role="img">',
        "<title>How many times as fast as the faster Go program</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(10, 16, "How many times as fast as the faster of two Go programs; | is the goal", bold=True),
        *(_grid(tick, ticks, height) for tick in ticks),
    ]
    for number, bar in enumerate(shown):
        parts += _drawn_bar(bar, TOP + LINE * number, ticks)
    return "\n".join((*parts, "</svg>", ""))


def _ticks(shown: Sequence[Bar]) -> Sequence[float]:
    """Give the lines of the scale: those around all bars and goals, at least from a half to four."""
    values = [0.5, 4.0, *(bar.ratio for bar in shown), *(bar.goal for bar in shown if bar.goal)]
    least, most = min(values), max(values)
    first = max([number for number, tick in enumerate(TICKS) if tick <= least], default=0)
    last = min([number for number, tick in enumerate(TICKS) if tick >= most], default=len(TICKS) - 1)
    return TICKS[first : last + 1]


def _x(value: float, ticks: Sequence[float]) -> float:
    share = math.log(min(max(value, ticks[0]), ticks[-1]) / ticks[0]) / math.log(ticks[-1] / ticks[0])
    return NAMES + share * (WIDTH - NAMES - RIGHT)


def _grid(tick: float, ticks: Sequence[float], height: int) -> str:
    x, wide = _x(tick, ticks), 2 if tick == 1 else 1
    stroke = (
        f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 10}" stroke="{GRID}" stroke-width="{wide}"/>'
    )
    return stroke + _text(x, TOP - 14, f"{tick:g}×", anchor="middle")


def _drawn_bar(bar: Bar, y: int, ticks: Sequence[float]) -> list[str]:
    start, end = sorted((_x(1, ticks), _x(bar.ratio, ticks)))
    goal = _x(bar.goal or 1, ticks)
    colour = FASTER if bar.ratio >= (bar.goal or 1) else SLOWER
    parts = [
        _text(NAMES - 10, y + BAR - 3, bar.name, anchor="end"),
        f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{BAR}" fill="{colour}"/>',
    ]
    if bar.goal:
        line = f'x1="{goal:.1f}" y1="{y - 2}" x2="{goal:.1f}" y2="{y + BAR + 2}"'
        parts.append(f'<line {line} stroke="{GOAL}" stroke-width="2"/>')
    return [*parts, _text(max(end, goal) + 6, y + BAR - 3, f"{bar.ratio:.2f}×")]


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{INK}"{weight}>{escape(text)}</text>'


if __name__ == "__main__":
    sys.exit(main())
