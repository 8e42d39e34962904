"""The benchmarks' own figures: ratios, verdicts, the page and chart that come of them. One profile alone is taken."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.dom import minidom

import pytest

from benchmarks import chart, contestants, measure, profiles, report, table
from benchmarks.goals import Above, AtLeast, AtMost, Memory, Ratio, Same, Verdict, fastest_go
from benchmarks.measure import Sample
from benchmarks.results import Results, Row, Series
from tests import inputs

MIB = 1 << 20


def taken(*walls: float, memory: int = 10 * MIB) -> list[Sample]:
    return [Sample(wall, wall, memory) for wall in walls]


SAMPLES = {
    "Layerhold": taken(1, 1, 2),
    "1.64": taken(3, 2, 4),
    "1.64 with pigz and zstd": taken(2, 2.5, 2),
    "1.43": taken(9, 9, 9),
    "floor": taken(1, 0.5, 1),
}


def test_ratios_are_taken_round_by_round() -> None:
    assert Ratio.of(SAMPLES["1.64"], SAMPLES["Layerhold"]) == Ratio(2, 2, 3)


def test_the_faster_way_of_the_faster_program_counts() -> None:
    assert fastest_go(SAMPLES) == "1.64 with pigz and zstd"
    assert fastest_go({"Layerhold": taken(1)}) is None


@pytest.mark.parametrize(
    ("goal", "measured", "reached"),
    [
        (AtLeast(2), "2.00×", True),
        (AtLeast(2.1), "2.00×", False),
        (AtLeast(2.5, "1.43"), "9.00×", True),
        (AtMost(2, "floor"), "2.00×", True),
        (AtMost(1.5, "floor"), "2.00×", False),
        (Above(0.5, "floor"), "500.0 ms", True),
        (Above(0.4, "floor"), "500.0 ms", False),
        (Memory(0), "10 MiB", True),
        (Same("floor"), "0.500×", False),
        (Same("Layerhold"), "1.000×", True),
    ],
)
def test_verdicts(goal: AtLeast | AtMost | Above | Memory | Same, measured: str, reached: bool) -> None:
    verdict = goal.judged(SAMPLES, "Layerhold")
    assert verdict is not None
    assert (verdict.measured, verdict.reached) == (measured, reached)


def test_memory_is_the_most_of_all_rounds() -> None:
    samples = {"Layerhold": [*taken(1, 1), *taken(1, memory=65 * MIB)]}
    assert not Memory(1).judged(samples, "Layerhold").reached
    assert Memory(20_000).judged(samples, "Layerhold").reached


def test_nothing_to_compare_with_is_no_verdict() -> None:
    assert AtLeast(2).judged({"Layerhold": taken(1)}, "Layerhold") is None


SLOWER = {"Layerhold": taken(4), "1.64": taken(1)}
RESULTS = Results(
    "a machine",
    3,
    (
        Row("apply, plain", "Layerhold", SAMPLES, (Verdict("at least 2×", "2.00×", True),), None, 2),
        Row("layers", "Layerhold", SAMPLES, (Verdict("x", "y", False),), Series("layers", "layers", 1000)),
        Row("start-up", "Layerhold", SLOWER, (), None),
        Row("floor", "Layerhold", {"Layerhold": taken(1)}, (), None),
    ),
)


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    RESULTS.write(tmp_path / "results")
    assert Results.read(tmp_path / "results") == RESULTS


def test_the_page_gets_results_in_the_place_of_the_old_ones() -> None:
    page = f"before\n{report.BEGIN}\nstale\n{report.END}\nafter\n"
    first = report.with_results(page, RESULTS)
    assert first.startswith("before\n")
    assert first.endswith("\nafter\n")
    assert "stale" not in first
    assert "1 of 2 goals reached" in first
    assert "apply, plain" in first
    assert report.with_results(first, RESULTS) == first
    with pytest.raises(ValueError, match="the page is to have"):
        report.with_results("no markers", RESULTS)


def test_the_page_has_the_markers() -> None:
    report.with_results(report.PAGE.read_text(), RESULTS)


def test_rows_have_as_many_cells_as_the_heading() -> None:
    cells = {line.count("|") for line in (table.HEADING, table.RULE, *map(table.line, RESULTS.rows))}
    assert len(cells) == 1


def test_the_chart_has_a_bar_for_each_job_that_go_does() -> None:
    """Also where there is no goal, or ours is slower."""
    bars = [(bar.name, bar.ratio, bar.goal) for bar in chart.bars(RESULTS)]
    assert bars == [("apply, plain", 2, 2), ("start-up", 0.25, 0)]
    drawn = minidom.parseString(chart.drawn(RESULTS))
    _background, *shown = drawn.getElementsByTagName("rect")
    assert [bar.getAttribute("fill") for bar in shown] == [chart.FASTER, chart.SLOWER]
    goals = [line for line in drawn.getElementsByTagName("line") if line.getAttribute("stroke") == chart.GOAL]
    assert len(goals) == 1


def test_a_run_is_measured(tmp_path: Path) -> None:
    words = [sys.executable, "-I", "-c", "import time; time.sleep(0.05); print('out')"]
    first, second = measure.runs([words, words], env={}, out=str(tmp_path / "out"))
    assert min(first.wall, second.wall) > 0.05
    assert min(first.memory, second.memory) > MIB
    assert (tmp_path / "out").read_text() == "out\n"
    assert measure.total([first, second]).wall == first.wall + second.wall


@pytest.mark.root
def test_a_profile_names_our_functions(tmp_path: Path) -> None:
    tar = str(inputs.of_files(1000))
    command = profiles.Command(
        "apply", ("import-layer", "-f", tar), lambda fs: contestants.ours().must(fs, "layers"), only_reads=False
    )
    found = profiles.described(command, tmp_path)
    assert found.startswith("\n## apply\n")
    assert "| `archive/extract.py:_file` | 1,000 |" in found
