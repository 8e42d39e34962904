"""How far a long operation has come, told to whoever asks.

A caller gives a callback, which is called with a `Progress` at most ten times a second and once at the end, in the
thread that does the work. What it raises ends the operation, as any error would: nothing half-made stays, and the
caller gets just that exception (`errors.Cancelled` is there for it). The callback must not use the store: locks may be
held while it runs.
"""

from __future__ import annotations

import time

from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Callback = Callable[["Progress"], object]

_SECONDS_BETWEEN = 0.1


class Progress(Value):
    """How far an operation has come. A total is None where it is not known before the end.

    `phase` is a word for what is being done. While a layer is filled (`unpacking`), `bytes` are those of the stream as
    it comes; while it is written out (`packing`), those of the tar before it is compressed.
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
            self._next = moment + _SECONDS_BETWEEN
            self._report()

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


def metered(chunks: Iterable[bytes], meter: Meter) -> Iterator[bytes]:
    """Pass chunks on, and count their bytes."""
    for chunk in chunks:
        meter.add(bytes=len(chunk))
        yield chunk
    meter.done()
