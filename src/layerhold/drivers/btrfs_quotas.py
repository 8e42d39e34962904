"""Limits on the size of layers, by the quota groups of btrfs.

    <home>/quotas/<id>             how many bytes layer <id> may refer to, in decimal digits; as Go's program has it
    <home>/quotas/.gone-<number>   a subvolume that was removed, whose quota group may still be there

A limit counts all that the layer refers to, also what it shares with its parent. It lies in the file system and holds
for the subvolume; it is set again at each mount, in case quotas were off meanwhile. Counting is turned on with the
first limit, for the whole file system, and is never turned off: others may use it.

A quota group can be removed when the kernel is done with removing the subvolume, some seconds later. Linux 6.18 does it
by itself then, 6.1 does not. So the numbers are noted, and their groups removed at one of the next sweeps or removals.
(Go tries too early, says that it failed, and leaves the group.)
"""

from __future__ import annotations

import errno
import os

from layerhold.drivers.btrfs_subvolumes import opened
from layerhold.drivers.sizes import shown_size
from layerhold.errors import DriverError
from layerhold.tree.files import FULL, make_dirs, read_bytes, unlink_if_there, write_atomic

_GONE = ".gone-"
_FEW_RIGHTS = (errno.EPERM, errno.EACCES)


class Quotas:
    """The limits of a home's layers; none is to be below `least` bytes."""

    def __init__(self, home: str, least: int) -> None:
        self.directory = os.path.join(home, "quotas")
        self._home = home
        self._least = least

    def file(self, id: str) -> str:
        """Say where the limit of layer `id` is kept."""
        return os.path.join(self.directory, id)

    def check(self, size: int) -> None:
        """Refuse a limit that is too small. Raises DriverError, in Go's words."""
        if size < self._least:
            raise DriverError(f"btrfs: storage size cannot be less than {shown_size(self._least)}")

    def turn_on(self) -> None:
        """Have the file system count, unless it does. Raises DriverError, in Go's words, OSError."""
        from layerhold.linux import btrfs

        with opened(self._home) as fd:
            try:
                if not btrfs.quotas_are_on(fd):
                    btrfs.turn_quotas_on(fd)
            except OSError as error:
                if error.errno not in _FEW_RIGHTS:
                    raise
                hint = "limits on sizes take root on the machine: leave out `size` and `min_space`"
                words = f"failed to enable btrfs quota for {self._home}: {error.strerror}"
                raise DriverError(words, hint=hint) from error

    def limit(self, path: str, size: int) -> None:
        """Limit the subvolume at `path`. Raises DriverError, OSError."""
        from layerhold.linux import btrfs

        self.check(size)
        self.turn_on()
        with opened(path) as fd:
            btrfs.limit(fd, size)

    def of(self, id: str) -> int:
        """Give the limit of layer `id`, or 0."""
        text = read_bytes(self.file(id))
        digits = (text or b"").strip()
        return int(digits) if digits.isdigit() and int(digits) >= self._least else 0

    def keep(self, id: str, size: int, aside: str) -> None:
        """Note the limit of layer `id`; 0 is none. It is written in the directory `aside`, and moved into its place.

        It is durable when what is put in place next is.
        """
        if size:
            make_dirs(self.directory)
            written = os.path.join(aside, "limit")
            write_atomic(written, b"%d" % size, mode=0o644, sync=False)
            os.rename(written, self.file(id))
        else:
            unlink_if_there(self.file(id))

    def note_gone(self, fd: int, number: int) -> None:
        """Note that a subvolume is about to be removed, so that its quota group will be; `fd` is on the file system."""
        from layerhold.linux import btrfs

        try:
            if not btrfs.quotas_are_on(fd):
                return
        except OSError as error:
            if error.errno not in _FEW_RIGHTS:
                raise
            return
        try:
            make_dirs(self.directory)
            with open(os.path.join(self.directory, f"{_GONE}{number}"), "wb"):
                pass
        except OSError as error:
            if error.errno not in FULL:  # a full disk keeps nothing from being removed
                raise

    def drop_gone(self) -> None:
        """Remove the quota groups of subvolumes that the kernel is done with."""
        try:
            names = [name for name in os.listdir(self.directory) if name.startswith(_GONE)]
        except FileNotFoundError:
            return
        if names:
            with opened(self.directory) as fd:
                for name in names:
                    self._drop(fd, name)

    def _drop(self, fd: int, name: str) -> None:
        from layerhold.linux import btrfs

        try:
            number = int(name.removeprefix(_GONE))
            if btrfs.is_known(fd, number):
                return
            btrfs.drop_count(fd, number)
        except ValueError:
            return
        except OSError as error:
            if error.errno in (errno.EBUSY, *_FEW_RIGHTS):
                return  # another time, or by somebody else
            if error.errno not in (errno.ENOENT, errno.ENOTCONN, errno.EINVAL):  # it went by itself; quotas are off
                raise
        unlink_if_there(os.path.join(self.directory, name))
