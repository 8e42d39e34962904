"""How far a long operation has come, told to whoever asks.

A caller gives a callback, which is called with a `Progress` at most ten times a second and once at the end, in the
thread that does the work. What it raises ends the operation, as any error would: nothing half-made stays, and the
caller gets just that exception (`errors.Cancelled` is there for it). The callback must not use the store: locks may be
held while it runs.
"""

from __future__ import annotations

import time

from layerhold.blocks import contextmanager
from layerhold.values import TypeVar, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Callback = Callable[["Progress"], object]

T = TypeVar("T")
_SECONDS_BETWEEN = 0.1


class Progress(Value):
    """How far an operation has come. A total is None where it is not known before the end.

    `phase` says what is being done; what counts as `bytes` and `entries` depends on it:

    - `unpacking` (a layer is filled): bytes of the stream as it comes, entries of the tar
    - `packing` (a layer is written out): bytes of the tar before it is compressed
    - `copying` (files of a layer): the sizes of the files, and all that has a name
    - `looking at owners`, `changing owners`: files, each inode once
    - `comparing` (two layers, for `changes` and the like): all that has a name
    - `checking`: bytes of the layers' tars; their entries, and all that has a name in the layers
    - `looking for files`, `sharing` (`dedup`): the sizes of files, and files
    - `converting` (a store, for another driver): bytes of the layers' tars
    - `removing`: all that has a name

    One operation may have several phases, and one of them several times; each begins to count at nothing.
    """

    phase: str
    bytes: int
    entries: int
    total_bytes: int | None
    total_entries: int | None


class Meter:
    """Counts, and calls back from time to time."""

    def __init__(
        self, callback: Callback, phase: str, *, total_bytes: int | None = None, total_entries: int | None = None
    ) -> None:
        self._callback = callback
        self._phase = phase
        self._totals = (total_bytes, total_entries)
        self._next = 0.0
        self._bytes = 0
        self._entries = 0

    def add(self, *, bytes: int = 0, entries: int = 0) -> None:  # noqa: A002 - as the field is called
        """Count more."""
        self.at(bytes=self._bytes + bytes, entries=self._entries + entries)

    def at(self, *, bytes: int, entries: int) -> None:  # noqa: A002 - as the field is called
        """Say how much it is by now."""
        self._bytes = bytes
        self._entries = entries
        moment = time.monotonic()
        if moment >= self._next:
            self._report()  # when it raises, the next call reports again: what goes on all the same is stopped, too
            self._next = moment + _SECONDS_BETWEEN

    def within(self, bytes: int) -> None:  # noqa: A002 - as the field is called
        """Say how much there is of something long that is not counted yet."""
        counted = self._bytes
        self.at(bytes=counted + bytes, entries=self._entries)
        self._bytes = counted

    def done(self) -> None:
        """Say that this was all."""
        self._report()

    def _report(self) -> None:
        total_bytes, total_entries = self._totals
        self._callback(
            Progress(
                phase=self._phase,
                bytes=self._bytes,
                entries=self._entries,
                total_bytes=total_bytes,
                total_entries=total_entries,
            )
        )


class _Stop(BaseException):
    """What a callback raised, on its way past all that handles errors of the work itself."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(error)


@contextmanager
def metering(
    callback: Callback | None, phase: str, *, total_bytes: int | None = None, total_entries: int | None = None
) -> Iterator[Meter | None]:
    """Give a meter for the work of the block, which has done all at its end; None if nobody asks.

    What the callback raises reaches the end of the block, whatever errors are handled in it, and is raised from there.
    """
    if callback is None:
        yield None
        return

    def call(progress: Progress) -> None:
        try:
            callback(progress)
        except Exception as error:
            raise _Stop(error) from None

    try:
        meter = Meter(call, phase, total_bytes=total_bytes, total_entries=total_entries)
        yield meter
        meter.done()
    except _Stop as stop:
        raise stop.error from None


def counted(things: Iterator[T], meter: Meter | None) -> Iterator[T]:
    """Pass things on, and count them as entries."""
    return things if meter is None else _counted(things, meter)


def _counted(things: Iterator[T], meter: Meter) -> Iterator[T]:
    for thing in things:
        meter.add(entries=1)
        yield thing


def metered(chunks: Iterable[bytes], meter: Meter) -> Iterator[bytes]:
    """Pass chunks on, and count their bytes."""
    for chunk in chunks:
        meter.add(bytes=len(chunk))
        yield chunk
    meter.done()
