"""Put results into docs/performance.md, between two markers: `python -m benchmarks.report FILE`, from a --json file.

Draws docs/performance.svg, too (chart.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import chart, table
from benchmarks.results import Results

PAGE = Path(__file__).resolve().parent.parent / "docs/performance.md"
BEGIN, END = "<!-- results: written by python -m benchmarks.report -->", "<!-- end of results -->"


def main() -> int:
    """Rewrite the section of the page, and draw the chart."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = Results.read(Path(sys.argv[1]))
    PAGE.write_text(with_results(PAGE.read_text(), results))
    chart.PLACE.write_text(chart.drawn(results))
    return 0


def with_results(page: str, results: Results) -> str:
    """Give the page with these results in the place of those that it had. Raises ValueError if a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page is to have the lines {BEGIN!r} and {END!r}")
    return "\n".join((before + BEGIN, "", *section(results), "", END + after))


def section(results: Results) -> list[str]:
    """Give the lines about results: on what they were taken, the chart, the tables."""
    rounds = "one round" if results.rounds == 1 else f"medians of {results.rounds} rounds"
    lines = [f"{results.machine}; {rounds}; {table.summary(results)}.", ""]
    if chart.bars(results):
        lines += ["![Go's time divided by ours, for each job](performance.svg)", ""]
    lines += [table.HEADING, table.RULE, *map(table.line, results.rows)]
    if grown := table.growth(results):
        lines += ["", "### How cost grows", "", "The median time and the peak memory.", *grown]
    return lines


if __name__ == "__main__":
    sys.exit(main())
