"""Work that a thread does behind its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from layerhold.archive.behind import Behind


def test_all_is_done_in_order() -> None:
    done: list[bytes] = []
    with Behind("test", at_most=2) as behind:
        for number in range(100):
            behind.do(done.append, b"%d" % number)
    assert done == [b"%d" % number for number in range(100)]


def test_no_thread_without_work() -> None:
    before = threading.active_count()
    with Behind("test", at_most=1):
        assert threading.active_count() == before


def test_it_is_not_further_behind() -> None:
    started, goes_on = threading.Event(), threading.Event()

    def wait(_data: bytes) -> None:
        started.set()
        assert goes_on.wait(10)

    def hand_over(behind: Behind) -> None:
        behind.do(wait, b"")
        behind.do(wait, b"")

    with Behind("test", at_most=1) as behind:
        caller = threading.Thread(target=hand_over, args=(behind,))
        caller.start()
        assert started.wait(10)
        caller.join(0.05)
        assert caller.is_alive()
        goes_on.set()
        caller.join(10)
        assert not caller.is_alive()


def fail(_data: bytes) -> None:
    raise OSError("the disk is full")


def test_an_error_is_raised_at_the_end() -> None:
    with pytest.raises(OSError, match="full"):
        hand_over(fail)


def test_an_error_ends_the_work() -> None:
    done: list[bytes] = []
    with pytest.raises(OSError, match="full"):
        hand_over(fail, *[done.append] * 100)
    assert not done


def test_after_an_error_each_piece_is_refused() -> None:
    with suppress(OSError), Behind("test", at_most=1) as behind:
        behind.do(fail, b"")
        for _ in range(3):
            with pytest.raises(OSError, match="full"):
                behind.do(fail, b"")


def test_an_error_of_the_block_goes_first() -> None:
    with pytest.raises(ValueError, match="mine"):
        hand_over(fail, end=ValueError("mine"))
    assert not any(thread.name == "test" for thread in threading.enumerate())


def hand_over(*works: Callable[[bytes], object], end: Exception | None = None) -> None:
    """Have pieces of work done, and end the block by an error."""
    with Behind("test", at_most=1) as behind:
        for work in works:
            behind.do(work, b"")
        if end is not None:
            raise end
