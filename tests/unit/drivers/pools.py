"""A device mapper that exists in memory: it has one thin pool, and does what the kernel's does, or fails as told."""

from __future__ import annotations

import errno
import os

from layerhold.linux.devmapper import Device, Mapper, Target

POOL = "pool"


class FakeMapper(Mapper):
    """`thin` are the devices of the pool, each with what it was made of; `shown` those that have names.

    `said` are all messages. `failing` are the beginnings of messages that fail, and by which error; `stopping` is one
    after which the "machine" stops.
    """

    def __init__(self) -> None:
        self.transaction = 0
        self.thin: dict[int, str] = {}
        self.shown: dict[str, Target] = {POOL: Target(sectors=100 * 128, kind="thin-pool", words="")}
        self.open: set[str] = set()
        self.deferred: set[str] = set()
        self.said: list[str] = []
        self.failing: dict[str, int] = {}
        self.stopping = ""
        self.data_used = 10

    def find(self, name: str) -> Device | None:
        if name not in self.shown:
            return None
        number = os.makedev(253, 0)
        return Device(number=number, open_count=int(name in self.open), suspended=False, deferred=name in self.deferred)

    def create(self, name: str, table: Target) -> None:
        self.shown[name] = table

    def remove(self, name: str, *, deferred: bool = False) -> None:
        if name not in self.shown:
            raise OSError(errno.ENXIO, "not there", name)
        if name in self.open:
            if not deferred:
                raise OSError(errno.EBUSY, "in use", name)
            self.deferred.add(name)
            return
        del self.shown[name]

    def close(self, name: str) -> None:
        """Let the last user of a device go."""
        self.open.discard(name)
        if name in self.deferred:
            self.deferred.discard(name)
            del self.shown[name]

    def keep(self, name: str) -> None:
        self.deferred.discard(name)

    def suspend(self, name: str) -> None:
        self.said.append(f"suspend {name}")

    def resume(self, name: str) -> None:
        self.said.append(f"resume {name}")

    def table(self, name: str) -> Target:
        return self.shown[name]

    def state(self, name: str) -> Target:
        return self.shown[name].replace(words=f"{self.transaction} 5/1000 {self.data_used}/100 - rw")

    def message(self, name: str, text: str) -> None:
        assert name == POOL
        if self.stopping and text.startswith(self.stopping):
            raise Stopped
        self.said.append(text)
        for beginning, number in self.failing.items():
            if text.startswith(beginning):
                raise OSError(number, os.strerror(number), name)
        word, *numbers = text.split()
        getattr(self, f"_{word}")(*map(int, numbers))

    def _create_thin(self, id: int) -> None:
        self._new(id, "nothing")

    def _create_snap(self, id: int, source: int) -> None:
        if source not in self.thin:
            raise OSError(errno.ENODATA, "no such device")
        self._new(id, f"{source}")

    def _new(self, id: int, of: str) -> None:
        if id in self.thin:
            raise FileExistsError(errno.EEXIST, "there is one")
        self.thin[id] = of

    def _delete(self, id: int) -> None:
        if id not in self.thin:
            raise OSError(errno.ENODATA, "no such device")
        if any(name in self.shown and self.shown[name].words.endswith(f" {id}") for name in self.shown):
            raise OSError(errno.EBUSY, "in use")
        del self.thin[id]

    def _set_transaction_id(self, old: int, new: int) -> None:
        if old != self.transaction:
            raise OSError(errno.EINVAL, "another transaction")
        self.transaction = new


class Stopped(BaseException):
    """The machine has stopped."""
