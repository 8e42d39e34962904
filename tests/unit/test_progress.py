"""How often a meter calls back and what it says; layers that are filled and written out under the eyes of one."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from layerhold import progress
from layerhold.errors import Cancelled
from layerhold.progress import Meter, Progress, metered
from layerhold.store import Store


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


# -- layers


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="vfs")


def a_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.size = os.getuid(), os.getgid(), 100_000
            tar.addfile(info, io.BytesIO(bytes(100_000)))
    return file.getvalue()


def stop(_progress: Progress) -> None:
    raise Cancelled


def test_a_layer_that_comes_in_and_goes_out_is_told_of(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(a_tar())
    coming: list[Progress] = []
    going: list[Progress] = []
    with (tmp_path / "a.tar").open("rb") as file:
        layer = store.layers.create(diff=file, progress=coming.append)
    with layer.diff(compression=2, progress=going.append) as tar:
        tar.read()
    size = len(a_tar())
    assert coming[-1] == Progress(phase="unpacking", bytes=size, entries=2, total_bytes=size, total_entries=None)
    assert going[-1] == Progress(phase="packing", bytes=size, entries=0, total_bytes=size, total_entries=None)


def test_the_size_of_a_tar_that_is_made_from_files_is_not_known_before(store: Store) -> None:
    going: list[Progress] = []
    with store.layers.create(diff=io.BytesIO(a_tar())).diff(regenerate=True, progress=going.append) as tar:
        size = len(tar.read())
    assert (going[-1].bytes, going[-1].total_bytes) == (size, None)


def test_nothing_stays_of_a_layer_that_is_cancelled(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Cancelled, match="cancelled"):
        store.layers.create(diff=io.BytesIO(a_tar()), names=["x"], progress=stop)
    assert len(store.layers) == 0
    assert not any((tmp_path / "root/vfs/dir").glob("*"))


def test_a_layer_is_as_it_was_when_more_for_it_is_cancelled(store: Store) -> None:
    layer = store.layers.create(diff=io.BytesIO(a_tar()))
    before = layer.record
    with pytest.raises(Cancelled):
        layer.apply(io.BytesIO(a_tar()), progress=stop)
    assert layer.refresh().record == before


def test_reading_ends_when_the_callback_raises(store: Store) -> None:
    layer = store.layers.create(diff=io.BytesIO(a_tar()))
    with layer.diff(progress=stop) as tar, pytest.raises(Cancelled):
        tar.read()
