"""Single files and whole trees on the host: written at once, measured, removed.

A file is written under the name `.tmp-<name>0` beside it, synced, and renamed into place, so that readers see the old
or the new one. The callers hold the lock of what the file belongs to, so one name is enough, and what a crash leaves is
replaced by the next write of the same file. (Go ends the name with random digits, and leaves it.)
"""

from __future__ import annotations

import os
import stat

TEMPORARY = ".tmp-"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def write_atomic(path: str, data: bytes, *, mode: int = 0o600, sync: bool = True) -> os.stat_result:
    """Put `data` in the place of the file `path`, and say what the new file is.

    Raises OSError; then nothing changed. The caller keeps others from writing the same file.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f"{TEMPORARY}{name}0")
    _unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            if sync:
                os.fdatasync(fd)
            os.fchmod(fd, mode)
            found = os.fstat(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        _unlink(temporary)
        raise
    if sync:
        sync_directory(directory or ".")
    return found


def sweep_temporaries(directory: str, name: str = "") -> None:
    """Remove what writers left in `directory` who were killed: all, or only what was to become `name`.

    The caller keeps others from writing there. Raises OSError.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for found in names:
        if found.startswith(TEMPORARY + name):
            _unlink(os.path.join(directory, found))


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: str) -> None:
    """Make everything on the file system of `path` durable: one journal commit instead of one for each file."""
    from layerhold.linux.files import syncfs

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


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
    """Count the bytes of the files below `path`, each inode once; 0 if there is nothing."""
    total = 0
    seen = set()
    for entry in _files_below(path):
        info = entry.stat(follow_symlinks=False)
        if info.st_nlink == 1 or (info.st_dev, info.st_ino) not in seen:
            seen.add((info.st_dev, info.st_ino))
            total += info.st_size
    return total


def remove_tree(path: str) -> None:
    """Remove `path` and all below it; nothing there is no error.

    Links are never followed, and directories without permission are opened to their owner first.
    """
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(path)
        return
    above = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _empty(above, os.path.basename(os.path.abspath(path)))
    finally:
        os.close(above)


def _empty(above: int, name: str) -> None:
    """Remove the directory `name` in `above`. An explicit stack: a tree may be deeper than Python's own."""
    stack = [(above, name, _enter(above, name))]
    try:
        while stack:
            parent, here, fd = stack[-1]
            below = next(_remove_files(fd), None)
            if below is not None:
                stack.append((fd, below, _enter(fd, below)))
                continue
            stack.pop()
            os.close(fd)
            os.rmdir(here, dir_fd=parent)
    finally:
        for _parent, _here, fd in stack:
            os.close(fd)


def _enter(above: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    if os.geteuid() != 0:
        info = os.stat(name, dir_fd=above, follow_symlinks=False)
        if info.st_mode & 0o700 != 0o700 and stat.S_ISDIR(info.st_mode):
            os.chmod(name, 0o700, dir_fd=above)
    return os.open(name, flags, dir_fd=above)


def _remove_files(fd: int) -> Iterator[str]:
    """Unlink everything in a directory that is no directory; yield the names of those that are."""
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name
            else:
                os.unlink(entry.name, dir_fd=fd)


def _files_below(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            found = list(entries)
    except FileNotFoundError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path)
        else:
            yield entry


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
