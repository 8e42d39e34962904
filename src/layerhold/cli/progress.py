"""A bar that shows how far a command is, for people at a terminal who have `rich` (the extra `ui`).

It is on standard error, and gone when the work is done. Nothing is shown in a pipe, in a terminal to which the output
itself goes, or under the name of Go's program, which shows nothing.
"""

from __future__ import annotations

import sys

from layerhold.blocks import contextmanager
from layerhold.cli.output import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.progress import Callback, Progress


@contextmanager
def shown(doing: str, *, wanted: bool = True) -> Iterator[Callback | None]:
    """Give the callback that moves the bar, or None where none is shown; the bar goes at the end of the block."""
    if not wanted or not sys.stderr.isatty() or program() == "containers-storage":
        yield None
        return
    try:
        from rich import console, progress
    except ModuleNotFoundError:
        yield None
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TextColumn("{task.fields[entries]}"),
    )
    with progress.Progress(
        *columns, console=console.Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task(doing, total=None, entries="")

        def move(now: Progress) -> None:
            entries = f"{now.entries} entries" if now.entries else ""
            bar.update(task, completed=now.bytes, total=now.total_bytes, entries=entries)

        yield move
