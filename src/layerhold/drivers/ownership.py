"""The owners of a whole tree rewritten: what a driver does for mapped layers that begin as a snapshot of others.

(A copy of files gets their new owners as it is made: tree/copy.py.)

An owner on the host becomes an owner in the container by the old maps, and that one an owner on the host by the new
maps. The tree is walked twice: first it is found out whether all owners have a map and what the rewriting will cost
(`plan`), so that an owner without one is an error while nothing is changed yet. A tree that is left half rewritten by a
crash cannot be told from a whole one: callers rewrite a copy, or an overlay, that is thrown away then.

Kept: modes with their setuid and setgid bits, file capabilities (which the kernel drops with the old owner), all other
attributes, times but ctime. Each inode is changed once, whatever its names are. On an overlay a change of the owner
copies the file up and parts it from its other names; afterwards they are made links to the copy. There the kernel syncs
each copy: 10,000 small files take 4 s, 2 s with four threads (mounted `volatile`: 1.5 s, 0.8 s). Elsewhere a change
takes microseconds, and threads only cost.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque

from layerhold.blocks import contextmanager
from layerhold.ids.owners import Owners
from layerhold.progress import metering
from layerhold.tree.walk import directories
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback, Meter
    from layerhold.tree.walk import Directory

_CAPABILITY = "security.capability"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE = 128  # changes in one task of a thread


class Counted(Value):
    """`files` were looked at (each inode once, directories too); `changes` of them get another owner.

    `bytes` are the sizes of the regular files that do: what an overlay copies. `left` could not be changed (`squash`).
    """

    files: int
    changes: int
    bytes: int
    left: int = 0


def plan(
    path: str,
    old: IdMappings | None,
    new: IdMappings | None,
    *,
    skip_root: bool = False,
    overflow: int | None = None,
    progress: Callback | None = None,
) -> Counted:
    """Say what `change_owners` with the same arguments would do. Raises StorageError as it does, OSError."""
    with metering(progress, "looking at owners") as meter:
        survey = _Survey(Owners(old, new, overflow), skip_root=skip_root, meter=meter)
        for directory in directories(path):
            survey.look_at(directory)
        return survey.counted()


def change_owners(
    path: str,
    old: IdMappings | None,
    new: IdMappings | None,
    *,
    skip_root: bool = False,
    squash: bool = False,
    overflow: int | None = None,
    workers: int = 1,
    progress: Callback | None = None,
) -> Counted:
    """Change the owners of all files in the directory `path`, and its own unless `skip_root`, from `old` to `new` maps.

    An ID that one of the maps does not cover becomes `overflow`; without it that raises StorageError, which names the
    file, before anything is changed. `squash` leaves files as they are whose owners this user or the file system cannot
    set. `workers` are threads; more than one pays on an overlay. `progress` is told how many files are looked at and
    changed; what it raises passes through. Raises OSError, which names the file; then part of the tree is changed.
    """
    owners = Owners(old, new, overflow)
    if owners.same:
        return plan(path, old, new, skip_root=skip_root, progress=progress)
    planned = plan(path, old, new, skip_root=skip_root, overflow=overflow, progress=progress)
    with metering(progress, "changing owners", total_entries=planned.files) as meter:
        survey = _Survey(owners, skip_root=skip_root, meter=meter)
        return _Rewriting(path, survey, squash=squash).run(workers)


class _Change:
    """A file that gets another owner; `name` "" is the top."""

    __slots__ = ("mode", "name", "owner", "path")

    def __init__(self, name: str, path: str, mode: int, owner: tuple[int, int]) -> None:
        self.name = name
        self.path = path
        self.mode = mode
        self.owner = owner


class _Link:
    """One more name of a file that gets another owner by its first name."""

    __slots__ = ("first", "owner", "path")

    def __init__(self, path: str, first: str, owner: tuple[int, int]) -> None:
        self.path = path
        self.first = first
        self.owner = owner


class _Survey:
    """Finds what is to be changed, and counts it. `links` are the names that are not changed by themselves."""

    def __init__(self, owners: Owners, *, skip_root: bool, meter: Meter | None) -> None:
        self.links: list[_Link] = []
        self._meter = meter
        self._owners = owners
        self._skip_root = skip_root
        self._seen: dict[tuple[int, int], _Change | None] = {}
        self._files = self._changes = self._bytes = 0

    def counted(self, *, left: int = 0) -> Counted:
        """Give what was counted so far."""
        return Counted(files=self._files, changes=self._changes - left, bytes=self._bytes, left=left)

    def look_at(self, directory: Directory) -> list[_Change]:
        """Give what changes in a directory, and the top itself."""
        found = []
        if not directory.path and not self._skip_root:
            found.append(self._look("", "/", directory.info))
        for name, info in directory.entries:
            path = directory.path + name
            if info.st_nlink == 1 or stat.S_ISDIR(info.st_mode):
                found.append(self._look(name, path, info))
            else:
                found.append(self._look_at_linked(name, path, info))
        return [change for change in found if change is not None]

    def _look_at_linked(self, name: str, path: str, info: os.stat_result) -> _Change | None:
        key = info.st_dev, info.st_ino
        if key not in self._seen:
            self._seen[key] = self._look(name, path, info)
            return self._seen[key]
        if (first := self._seen[key]) is not None:
            self.links.append(_Link(path, first.path, first.owner))
        return None

    def _look(self, name: str, path: str, info: os.stat_result) -> _Change | None:
        self._files += 1
        if self._meter is not None:
            self._meter.add(entries=1)
        owner = self._owners.of(info, path)
        if owner == (info.st_uid, info.st_gid):
            return None
        self._changes += 1
        if stat.S_ISREG(info.st_mode):
            self._bytes += info.st_size
        return _Change(name, path, info.st_mode, owner)


class _Rewriting:
    def __init__(self, top: str, survey: _Survey, *, squash: bool) -> None:
        self._top = top
        self._survey = survey
        self._squash = squash
        self._times: dict[str, tuple[int, int]] = {}

    def run(self, workers: int) -> Counted:
        if workers < 2:
            left = sum(self._change_all(fd, changes) for fd, changes in self._parts())
        else:
            left = self._run_threads(workers)
        joined = [self._join(link) for link in self._survey.links]
        if workers > 1 or any(joined):
            self._restore_times()
        return self._survey.counted(left=left)

    def _run_threads(self, workers: int) -> int:
        from concurrent.futures import ThreadPoolExecutor

        left = 0
        pending: deque[Future[int]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for fd, changes in self._parts():
                pending.append(pool.submit(self._change_part, os.dup(fd), changes))
                if len(pending) > 4 * workers:
                    left += pending.popleft().result()
            return left + sum(task.result() for task in pending)

    def _parts(self) -> Iterator[tuple[int, list[_Change]]]:
        """Give all that is to be changed, in parts of one directory each, which is open until the next is asked for."""
        for directory in directories(self._top):
            self._times[directory.path] = directory.info.st_atime_ns, directory.info.st_mtime_ns
            changes = self._survey.look_at(directory)
            for start in range(0, len(changes), _AT_ONCE):
                yield directory.fd, changes[start : start + _AT_ONCE]

    def _change_part(self, fd: int, changes: list[_Change]) -> int:
        try:
            return self._change_all(fd, changes)
        finally:
            os.close(fd)

    def _change_all(self, fd: int, changes: list[_Change]) -> int:
        """Change files in the directory `fd`; give how many could not be changed."""
        return sum(not self._change(fd, change) for change in changes)

    def _change(self, fd: int, change: _Change) -> bool:
        """Change one owner, and set again what the kernel takes from a file that changes hands."""
        try:
            if not change.name:
                os.fchown(fd, *change.owner)
            elif stat.S_ISREG(change.mode):
                _change_file(fd, change)
            else:
                os.chown(change.name, *change.owner, dir_fd=fd, follow_symlinks=False)
                _restore_mode(fd, change)
        except OSError as error:
            if self._squash and error.errno in (errno.EPERM, errno.EINVAL):
                return False
            raise _about(change.path, error) from error
        return True

    def _join(self, link: _Link) -> bool:
        """Make a name a link to the file's first name again if the change of that one has parted them; tell whether."""
        try:
            with self._parent(link.path) as (at, name), self._parent(link.first) as (first_at, first):
                if _owner(at, name) == link.owner or _owner(first_at, first) != link.owner:
                    return False
                aside = f".owners-{os.urandom(8).hex()}"
                os.link(first, aside, src_dir_fd=first_at, dst_dir_fd=at, follow_symlinks=False)
                os.rename(aside, name, src_dir_fd=at, dst_dir_fd=at)
                return True
        except OSError as error:
            raise _about(link.path, error) from error

    def _restore_times(self) -> None:
        """Set the times of directories again: copies of their files, made at the same time, may have got them wrong."""
        for directory in directories(self._top):
            times = self._times[directory.path]
            if times[1] != directory.info.st_mtime_ns:
                os.utime(directory.fd, ns=times)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory that holds `path`, step by step: a path may be too long for one call."""
        *folders, name = path.split("/")
        at = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                below = os.open(folder, _DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
            yield at, name
        finally:
            os.close(at)


def _change_file(fd: int, change: _Change) -> None:
    place = f"/proc/self/fd/{fd}/{change.name}"
    capability = _capability(place)
    os.chown(change.name, *change.owner, dir_fd=fd, follow_symlinks=False)
    _restore_mode(fd, change)
    if capability is not None:
        os.setxattr(place, _CAPABILITY, capability, follow_symlinks=False)


def _capability(place: str) -> bytes | None:
    try:
        return os.getxattr(place, _CAPABILITY, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise


def _restore_mode(at: int, change: _Change) -> None:
    if not change.mode & 0o6000 or stat.S_ISLNK(change.mode) or stat.S_ISDIR(change.mode):
        return
    fd = os.open(change.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(change.mode))
    finally:
        os.close(fd)


def _owner(at: int, name: str) -> tuple[int, int]:
    info = os.stat(name, dir_fd=at, follow_symlinks=False)
    return info.st_uid, info.st_gid


def _about(path: str, error: OSError) -> OSError:
    return OSError(error.errno, f"changing the owner: {error.strerror}", path)
