"""Writing back while there is more to come: it happens when it is asked for, and never stands in the way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from layerhold.linux import files
from layerhold.tree.writing_back import WritingBack
from tests import stores


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    calls = threading.Semaphore(0)
    real = files.syncfs

    def counted(fd: int) -> None:
        real(fd)
        calls.release()

    monkeypatch.setattr(files, "syncfs", counted)
    return calls


def test_it_goes_when_it_is_told_to(tmp_path: Path, synced: threading.Semaphore) -> None:
    with WritingBack(str(tmp_path)) as writing_back:
        for _ in range(3):
            writing_back.go()
            assert synced.acquire(timeout=30)


def test_nothing_runs_where_nothing_was_asked_for(tmp_path: Path, synced: threading.Semaphore) -> None:
    before, threads = stores.descriptors(), threading.active_count()
    with WritingBack(str(tmp_path)):
        assert threading.active_count() == threads
    assert not synced.acquire(blocking=False)
    assert stores.descriptors() == before


def test_an_error_of_the_disk_is_raised_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def broken(_fd: int) -> None:
        tried.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "syncfs", broken)
    before, threads = stores.descriptors(), threading.active_count()
    writing_back = WritingBack(str(tmp_path))
    writing_back.go()
    assert tried.wait(timeout=30)
    writing_back.go()
    with pytest.raises(OSError, match="Input/output"), writing_back:
        pass
    assert threading.active_count() == threads
    assert stores.descriptors() == before


def test_an_error_in_the_block_goes_first(tmp_path: Path, synced: threading.Semaphore) -> None:
    threads = threading.active_count()
    writing_back = WritingBack(str(tmp_path))
    writing_back.go()
    with pytest.raises(KeyError), writing_back:
        raise KeyError
    assert threading.active_count() == threads
