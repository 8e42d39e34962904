"""Pipes and terminals to read from, in any thread, until Ctrl-C.

Ctrl-C interrupts the main thread alone. A thread that waits for a pipe would go on waiting, and the main thread for it.
"""

from __future__ import annotations

import io
import os
import select
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Interruptible(io.RawIOBase):
    """What comes by the descriptor `fd`, which stays open. To be made in the main thread, and used as a block.

    Reading raises KeyboardInterrupt after Ctrl-C, as the main thread does.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._signals, self._told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)

    def close(self) -> None:
        """End the block."""
        if not self.closed:
            signal.set_wakeup_fd(self._before)
            os.close(self._signals)
            os.close(self._told)
        super().close()

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read1(self, size: int = io.DEFAULT_BUFFER_SIZE, /) -> bytes:
        """Give what is there, up to `size` bytes, as soon as there is something."""
        self._wait()
        return os.read(self._fd, size)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer with what is there, as soon as there is something."""
        self._wait()
        return os.readv(self._fd, [buffer])

    def _wait(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._signals], [], [])
            if self._signals in ready and signal.SIGINT in os.read(self._signals, 512):
                raise KeyboardInterrupt
            if self._fd in ready:
                return
