"""Writing to the disk while there is more to come: so that making a large tree durable at its end takes no time.

A thread has the kernel write the file system back, each time that some megabytes have been added. It only hastens: what
has to be durable is synced by whoever needs it (durable.py: sync_tree), and finds little left to do.
"""

from __future__ import annotations

import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

STEP = 48 << 20  # bytes after which it pays: each time is a commit of the file system's journal, too


class WritingBack:
    """A block in which what was written below `path` is written back, beside all else, whenever `go` is called.

    An error of the disk is raised at the end of the block (OSError): the kernel tells it once, so that a later sync
    would not find it.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._due = threading.Event()
        self._ended = False
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None

    def go(self) -> None:
        """Have what is there now written back."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="layerhold-write-back", daemon=True)
            self._thread.start()
        self._due.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        self._ended = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        os.close(self._fd)
        if self._error is not None and kind is None:
            raise self._error

    def _work(self) -> None:
        from layerhold.linux.files import syncfs

        while True:
            self._due.wait()
            self._due.clear()
            if self._ended:
                return
            try:
                syncfs(self._fd)
            except OSError as error:
                self._error = error
                return
