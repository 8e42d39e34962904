"""Work that a thread does behind its caller: what is handed to it, one after another, at most so many pieces behind.

It is for work that does without the interpreter's lock (to hash, to compress, to write), in pieces so large that the
handing over is nothing beside it.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    Work = Callable[[bytes], object]

__all__ = ["Behind", "places"]


def places(count: int) -> SimpleQueue[None]:
    """Give a counter of free places in a queue: `get` takes one, and waits for it without a step of Python."""
    free: SimpleQueue[None] = SimpleQueue()
    for _ in range(count):
        free.put(None)
    return free


class Behind:
    """A block with such a thread, which starts with the first piece; at its end all is done.

    What a piece of work raises is raised in the caller, at the next piece or at the end, and nothing is done after it.
    """

    def __init__(self, name: str, *, at_most: int) -> None:
        self._name = name
        self._queue: SimpleQueue[tuple[Work, bytes] | None] = SimpleQueue()
        self._free = places(at_most)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def do(self, work: Work, data: bytes) -> None:
        """Have `work(data)` done, after what was handed over before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._free.get()
        if self._error is not None:
            self._free.put(None)
            raise self._error
        self._queue.put((work, data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                work, data = item
                try:
                    work(data)
                except BaseException as error:  # it is raised again in the caller's thread.
                    self._error = error
            self._free.put(None)
