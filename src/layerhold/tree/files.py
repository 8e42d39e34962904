"""Single files and whole trees on the host: written at once, measured, removed.

A file is written under the name `.tmp-<name>0` beside it, synced, and renamed into place, so that readers see the old
or the new one. The callers hold the lock of what the file belongs to, so one name is enough, and what a crash leaves is
replaced by the next write of the same file. (Go ends the name with random digits, and leaves it.)
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.tree.durable import settle_file, sync_directory

TEMPORARY = ".tmp-"
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk, or a quota, that is full

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.progress import Meter


def write_atomic(
    path: str, data: bytes, *, mode: int = 0o600, sync: bool = True, settled: bool = True
) -> os.stat_result:
    """Put `data` in the place of the file `path`, and say what the new file is.

    Without `sync` a loss of power may leave half of it; with that alone, and not `settled`, the old file or the new.
    Raises OSError; then nothing changed. The caller keeps others from writing the same file.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f"{TEMPORARY}{name}0")
    unlink_if_there(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fchmod(fd, mode)
            if sync:
                settle_file(fd, directory or ".")
            found = os.fstat(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        unlink_if_there(temporary)
        raise
    if sync and settled:
        sync_directory(directory or ".")
    return found


def overwrite(path: str, data: bytes) -> bool:
    """Put `data` in the file `path` without taking room on the disk, if it is not longer than what is there; tell so.

    For disks that are full. The rest of the old content becomes blanks in the same write, and is cut off after it, so a
    reader of JSON never sees half of each; a machine that loses power in between may.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        if size < len(data):
            return False
        os.pwrite(fd, data.ljust(size), 0)
        os.ftruncate(fd, len(data))
        os.fdatasync(fd)
    finally:
        os.close(fd)
    return True


def sweep_temporaries(directory: str, *targets: str) -> None:
    """Remove what writers left in `directory` who were killed: all, or only what was to become one of `targets`.

    The caller keeps others from writing there. Raises OSError.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    beginnings = tuple(TEMPORARY + target for target in targets) or (TEMPORARY,)
    for name in names:
        if name.startswith(beginnings):
            unlink_if_there(os.path.join(directory, name))


def make_dirs(path: str, mode: int = 0o700) -> None:
    """Make the directory `path` and those above it that are missing, all with `mode` whatever the umask is."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    if above and above != path:
        make_dirs(above, mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    os.chmod(path, mode)


def move(src: str, dst: str) -> None:
    """Rename a file or directory, one too that its owner may not write (moving a directory changes its `..`)."""
    try:
        os.rename(src, dst)
    except PermissionError:
        info = os.lstat(src)
        if not stat.S_ISDIR(info.st_mode) or info.st_mode & 0o200:
            raise
        os.chmod(src, stat.S_IMODE(info.st_mode) | 0o200)
        os.rename(src, dst)
        os.chmod(dst, stat.S_IMODE(info.st_mode))


def read_bytes(path: str) -> bytes | None:
    """Give the content of a file, or None if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def disk_usage(path: str) -> int:
    """Count the bytes of the files below `path`, each inode once; 0 if there is nothing. Raises OSError."""
    total = 0
    seen = set()
    for found in _files_below(path):
        if found.st_nlink == 1 or (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            total += found.st_size
    return total


def _files_below(path: str) -> Iterator[os.stat_result]:
    left = [path] if os.path.lexists(path) else []
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                else:
                    yield entry.stat(follow_symlinks=False)


def remove_tree(path: str, meter: Meter | None = None) -> None:
    """Remove `path` and all below it; nothing there is no error. Raises OSError, which names the path that resisted.

    The meter counts what is below it.

    Links are never followed, mount points never entered (EBUSY), and directories whose owner may not change them are
    opened to him first.
    """
    above, name = os.path.split(os.path.abspath(path))
    try:
        at = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        info = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            _Removal(at, name, path, meter).run()
        else:
            os.unlink(name, dir_fd=at)
    except FileNotFoundError as error:
        if error.filename not in (name, path):
            raise
    finally:
        os.close(at)


class _Removal:
    """A tree on its way out: the directories that are open, from the top to where we are.

    A tree may be deeper than Python's stack, or than the number of descriptors that we may have. So this is a loop, and
    what lies deep is moved up to the top first.
    """

    def __init__(self, at: int, name: str, path: str, meter: Meter | None) -> None:
        self._meter = meter
        self._at = at
        self._name = name
        self._path = path
        self._open: list[tuple[str, int, list[str]]] = []  # name, descriptor, directories in it that are left

    def run(self) -> None:
        """Remove the tree."""
        try:
            self._visit(self._at, self._name)
            while self._open:
                name, fd, left = self._open[-1]
                if left:
                    self._visit(fd, left.pop())
                else:
                    self._open.pop()
                    os.close(fd)
                    os.rmdir(name, dir_fd=self._open[-1][1] if self._open else self._at)
                    self._count()
        except OSError as error:
            error.filename = self._whole(error.filename)
            raise
        finally:
            for _name, fd, _left in self._open:
                os.close(fd)

    def _whole(self, name: object) -> str:
        """Give the path of what resisted: `name` in the directory that we are in."""
        if not self._open:
            return self._path
        names = [name for name, _fd, _left in self._open[1:]]
        return os.path.join(self._path, *names, *([name] if isinstance(name, str) else []))

    def _visit(self, at: int, name: str) -> None:
        """Remove a directory if it is empty; else remove its files, and leave its directories to be visited."""
        try:
            # First, because it is what finds a mount point, of the same file system or another: EBUSY.
            os.rmdir(name, dir_fd=at)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            self._count()
            return
        if len(self._open) == _DEPTH:
            higher = os.urandom(8).hex()
            _name, top, left = self._open[0]
            _unlock(name, at)
            os.rename(name, higher, src_dir_fd=at, dst_dir_fd=top)
            left.append(higher)
            return
        _unlock(name, at)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        left = []
        self._open.append((name, fd, left))
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.name)
                else:
                    os.unlink(entry.name, dir_fd=fd)
                    self._count()

    def _count(self) -> None:
        if self._meter is not None and self._open:
            self._meter.add(entries=1)


_DEPTH = 100  # directories open at once in one removal


def _unlock(name: str, at: int) -> None:
    """Let the owner of a directory change it. (The rights of root do not depend on it.)"""
    if os.geteuid():
        mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if mode & 0o700 != 0o700:
            os.chmod(name, 0o700, dir_fd=at)


def unlink_if_there(path: str) -> None:
    """Remove a file; none is no error."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
