"""How often a meter calls back, and what it says."""

from __future__ import annotations

import pytest

from layerhold import progress
from layerhold.progress import Meter, Progress, metered


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_it_calls_back_at_most_ten_times_a_second_and_at_the_end(clock: Clock) -> None:
    said: list[Progress] = []
    meter = Meter(said.append, "working", total_bytes=100)
    for _ in range(100):
        meter.add(bytes=1, entries=2)
        clock.now += 1 / 32
    meter.done()
    assert [one.bytes for one in said[:3]] == [1, 5, 9]
    assert len(said) <= 1 + 100 / 32 * 10
    assert said[-1] == Progress(phase="working", bytes=100, entries=200, total_bytes=100, total_entries=None)


def test_chunks_pass_and_are_counted(clock: Clock) -> None:
    said: list[Progress] = []
    assert list(metered([b"ab", b"c"], Meter(said.append, "packing"))) == [b"ab", b"c"]
    assert [one.bytes for one in said] == [2, 3]


def test_what_the_callback_raises_passes_through() -> None:
    def stop(_progress: Progress) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        Meter(stop, "working").add(bytes=1)
