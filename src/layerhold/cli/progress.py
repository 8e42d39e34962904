"""A bar that shows how far a command is, for people at a terminal who have `rich` (the extra `ui`).

It is on standard error, comes when the work takes longer than a moment, and is gone when that is done. Nothing is shown
in a pipe, in a terminal to which the output itself goes, or under the name of Go's program, which shows nothing.
"""

from __future__ import annotations

import sys
import time

from layerhold.blocks import contextmanager
from layerhold.cli.output import human, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    import rich.progress

    from layerhold.progress import Callback, Progress

_AFTER = 0.2  # seconds


@contextmanager
def shown(*, wanted: bool = True) -> Iterator[Callback | None]:
    """Give the callback that moves the bar, or None where none is shown; the bar goes at the end of the block."""
    if not wanted or not sys.stderr.isatty() or program() == "containers-storage" or not _has_rich():
        yield None
        return
    bar = _Bar()
    try:
        yield bar.move
    finally:
        bar.stop()


def _has_rich() -> bool:
    from importlib.util import find_spec

    return find_spec("rich") is not None


class _Bar:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._display: rich.progress.Progress | None = None
        self._phase = ""

    def move(self, now: Progress) -> None:
        """Show how far it is. Each phase has a bar of its own, in the place of the one before."""
        if time.monotonic() < self._began + _AFTER:
            return
        if self._display is None:
            self._display = _display()
            self._display.start()
        if now.phase != self._phase:
            self._phase = now.phase
            for id in self._display.task_ids:
                self._display.remove_task(id)
            self._display.add_task(now.phase.capitalize(), total=None, amount="")
        task = self._display.tasks[0]
        by_bytes = now.total_bytes is not None or now.total_entries is None
        self._display.update(
            task.id,
            completed=now.bytes if by_bytes else now.entries,
            total=now.total_bytes if by_bytes else now.total_entries,
            amount=_amount(now, task.speed if by_bytes else None),
        )

    def stop(self) -> None:
        """Take the bar away."""
        if self._display is not None:
            self._display.stop()


def _display() -> rich.progress.Progress:
    from rich import console, progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[amount]}"),
        progress.TimeRemainingColumn(compact=True),
        console=console.Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _amount(now: Progress, speed: float | None) -> str:
    """Say how much it is: `1.2 MB of 3.4 MB, 56 entries, 7.8 MB/s`."""
    parts = []
    if now.bytes:
        parts.append(human(now.bytes) + (f" of {human(now.total_bytes)}" if now.total_bytes else ""))
    if now.entries:
        parts.append(f"{now.entries}{f' of {now.total_entries}' if now.total_entries else ''} entries")
    if now.bytes and speed:
        parts.append(f"{human(speed)}/s")
    return ", ".join(parts)
