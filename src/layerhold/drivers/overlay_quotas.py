"""Limits on the size of overlay layers, by the project quotas of xfs and ext4.

    <home>/<id>/                 has a number of its own, which all in it inherits; so only layers that are written to
    <home>/backingFsBlockDev     the device of the file system, as Go's program makes it; used before Linux 5.14

The numbers are Go's: those of a home start above its own one or, where it has none, above one that is made of its inode
number; each new layer gets the next after the greatest one there is. Like Go's, a layer gets one even if it has no
limit, so that what it holds is counted. Limits are kept by the file system, and nowhere else.

Numbers are given out under a lock of the home (flock), and those of layers in the making count, so that two never get
the same one; Go's program knows nothing of that lock. A number may have had a layer before, whose limits Go leaves:
here all limits are set with each number, and taken away with the layer.

A layer that is full could not be mounted to be written to: overlay makes a directory in `work`, and without it shows
the layer read-only. So for the moment of mounting there is a little room above the limit. Killed in that moment, it
stays.
"""

from __future__ import annotations

import errno
import fcntl
import os

from layerhold.blocks import contextmanager
from layerhold.drivers.sizes import Limits
from layerhold.errors import DriverError
from layerhold.linux import project_quota
from layerhold.linux.project_quota import Quota
from layerhold.tree.files import FULL, make_dirs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "backingFsBlockDev"
_RANGE, _NUMBERS = 10000, 2**32 - 1  # as Go: so many numbers for each home, of so many
_ROOM, _ROOM_FOR_FILES = 1 << 20, 16
_OFF = (errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.EPERM, errno.EACCES)  # somebody turned quotas off, or this user
_NO_PROJECT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENOTTY, errno.EOPNOTSUPP)
_NO_QUOTA = Quota(size=0, inodes=0, used=0, used_inodes=0)


class Quotas:
    """The numbers and limits of the layers in `home`; those in the making are below `aside`."""

    def __init__(self, home: str, aside: str) -> None:
        self._home = home
        self._aside = aside
        self._device = project_quota.Device(home, os.path.join(home, NODE))
        self._begun = False
        self._known: dict[tuple[str, int], int] = {}

    def begin(self) -> None:
        """Let nothing inherit a number of the whole home, in which layers could not be moved about: as Go does."""
        if not self._begun:
            make_dirs(self._aside)
            for directory in (self._home, self._aside):
                with _opened(directory) as fd:
                    project_quota.stop_inheriting(fd)
            self._begun = True

    @contextmanager
    def given(self, place: str, limits: Limits) -> Iterator[None]:
        """Give the empty directory `place` a number with these limits; it is filled in this block.

        Raises DriverError if there cannot be such limits, or the layer's own files are too much for them.
        """
        try:
            number = self._give_number(place)
            self._device.limit(number, size=limits.size, inodes=limits.inodes)
        except OSError as error:
            if error.errno in (*FULL, errno.ENOENT):
                raise
            if limits != Limits():
                words = f"failed to set quota limit on {self._home}: {(error.strerror or str(error)).lower()}"
                hint = "leave out `size` and `inodes`, or mount the file system with prjquota"
                raise DriverError(words, hint=hint) from error
        try:
            yield
        except OSError as error:
            if error.errno not in FULL or limits == Limits():
                raise
            allowed = [f"{name}={value}" for name, value in (("size", limits.size), ("inodes", limits.inodes)) if value]
            words = f"the layer's own files are more than {', '.join(allowed)} allows: {error.strerror}"
            raise DriverError(words, hint="give it more, or see that the file system is not full") from error

    def of(self, path: str) -> Limits | None:
        """Give the limits of a layer; None if it has no number of its own."""
        number, quota = self._counted(path)
        return Limits(size=quota.size, inodes=quota.inodes) if number else None

    def forget(self, path: str) -> None:
        """Take the limits of a layer that is about to be removed away, for who gets its number next."""
        number, quota = self._counted(path)
        if quota.size or quota.inodes:
            self._device.limit(number, size=0, inodes=0)

    @contextmanager
    def room(self, path: str) -> Iterator[None]:
        """Let a full layer have a little more than it may, for this block."""
        number, quota = self._counted(path)
        size = max(quota.size, quota.used + _ROOM) if quota.size else 0
        inodes = max(quota.inodes, quota.used_inodes + _ROOM_FOR_FILES) if quota.inodes else 0
        if (size, inodes) == (quota.size, quota.inodes):
            yield
            return
        self._device.limit(number, size=size, inodes=inodes)
        try:
            yield
        finally:
            self._device.limit(number, size=quota.size, inodes=quota.inodes)

    def _counted(self, path: str) -> tuple[int, Quota]:
        """Give the number of a layer and what it may have; 0 if it has none, or only that of the whole home."""
        number = _project_of(path)
        if number < self._first():
            return 0, _NO_QUOTA
        try:
            return number, self._device.quota(number)
        except OSError as error:
            if error.errno not in _OFF:
                raise
            return number, _NO_QUOTA

    def _first(self) -> int:
        """Say which number the first layer gets."""
        with _opened(self._home) as fd:
            own = project_quota.project(fd)
            inode = os.fstat(fd).st_ino
        return 1 + (own or _RANGE + (inode * _RANGE) % 2**64 % (_NUMBERS - _RANGE))

    def _give_number(self, place: str) -> int:
        with _opened(self._home) as home, _opened(place) as fd:
            fcntl.flock(home, fcntl.LOCK_EX)
            number = max(self._first(), *(used + 1 for used in self._used()))
            if number > project_quota.MOST:
                raise OSError(errno.EOVERFLOW, f"no project ID is left: a layer in {self._home} has the last one")
            project_quota.start(fd, number)
        return number

    def _used(self) -> Iterator[int]:
        """Give the numbers of all layers, first those in the making: they may be moved to the others meanwhile."""
        yield 0
        for directory in _directories(self._aside):
            yield from map(_project_of, _directories(directory))
        known, self._known = self._known, {}
        with os.scandir(self._home) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    key = entry.name, entry.inode()
                    self._known[key] = known[key] if key in known else _project_of(entry.path)
        yield from self._known.values()


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _project_of(path: str) -> int:
    """Give the number of a directory, 0 if it has gone, is none, or has something mounted on it."""
    try:
        with _opened(path) as fd:
            return project_quota.project(fd)
    except OSError as error:
        if error.errno not in _NO_PROJECT:
            raise
    return 0


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
