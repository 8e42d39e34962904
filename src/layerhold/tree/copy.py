"""A whole tree copied: contents shared where the file system can, everything about the files kept.

Kept: type, owner, mode, times in nanoseconds, attributes, device numbers, hard links within the tree, holes. Contents
are cloned (FICLONE), or copied in the kernel (copy_file_range), or read and written; what works for one file is tried
first for the next. Sockets become named pipes, as in Go's copy. An ordinary user's copies are his own: owners are not
set, and files and directories that he owns but may not read are opened to him for the moment.

Owners can be changed on the way: a file gets its new one first, since that takes setuid bits and capabilities from it.
Files are read without a change of their times where that is allowed, which spares the file system a write for each.

A tree may be deeper than a path can say and than descriptors can be had: names are only used within their directory,
and of a long way down only the last directories are kept open. The copy is made aside by its caller; a crash leaves
half a tree there.
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.progress import metering
from layerhold.tree.writing_back import STEP, WritingBack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from layerhold.ids.owners import Owners
    from layerhold.progress import Callback, Meter

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY = _READ | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_BLOCK = 1 << 20
_PIECE = 64 << 20  # in one call of the kernel's, so that a long copy can be told of and ended
_KEPT_OPEN = 100
_LEAST = 4 << 10  # bytes that any file with content takes on the disk
_SMALL = 16 << 10  # bytes: up to here two calls cost less than looking for holes
_LONGEST = 4000  # bytes in one call, a little less than the kernel's PATH_MAX
_CANNOT = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM, errno.ETXTBSY)


def copy_tree(
    src: str,
    dst: str,
    *,
    owners: Owners | None = None,
    keep_top: bool = False,
    squash: bool = False,
    progress: Callback | None = None,
) -> None:
    """Copy all that is in the directory `src` into the directory `dst`, which exists and is empty, and make it alike.

    `owners` say what an owner becomes; that of the top stays with `keep_top`, and with `squash` so does one whom this
    user or the file system cannot set. `progress` is told how much is copied; what it raises passes through.
    Raises OSError, and StorageError for an owner who becomes nobody; both name the file.
    """
    with metering(progress, "copying") as meter, WritingBack(dst) as writing_back:
        _Copy(meter, writing_back, _Giving(owners, keep_top=keep_top, squash=squash)).run(src, dst)


class _Frame:
    """One directory that is being copied."""

    def __init__(self, src: int, dst: int, info: os.stat_result, mode: int | None) -> None:
        self.src = src
        self.dst = dst
        self.info = info
        self.mode = mode  # the mode to give back to the source, if it had to be changed
        self.path = ""  # below the root, with a slash at its end
        with os.scandir(src) as entries:  # names, the first one last, and whether they are regular files
            self.names = sorted(((entry.name, entry.is_file(follow_symlinks=False)) for entry in entries), reverse=True)
        self.identity = _identity(src), _identity(dst)

    def close(self) -> None:
        """Close both directories; a second time is no error."""
        for fd in (self.src, self.dst):
            if fd >= 0:
                os.close(fd)
        self.src = self.dst = -1

    def reopen(self, below: _Frame) -> None:
        """Open both again by way of a directory in them. Raises OSError if they were moved meanwhile."""
        if self.src < 0:
            self.src = os.open("..", _DIRECTORY, dir_fd=below.src)
            self.dst = os.open("..", _DIRECTORY, dir_fd=below.dst)
            if self.identity != (_identity(self.src), _identity(self.dst)):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self.path)


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


class _Giving:
    """Gives copies their owners."""

    def __init__(self, owners: Owners | None, *, keep_top: bool, squash: bool) -> None:
        self._owners = owners
        self._keep_top = keep_top
        self._squash = squash
        self._ordinary = os.geteuid() != 0

    def give(self, copy: int | str, at: int | None, info: os.stat_result, path: str) -> None:
        """Give a copy its owner: an open one, or a name in the directory `at`. `info` is that of what was copied."""
        if self._owners is None or (self._keep_top and not path):
            if not self._ordinary:
                _chown(copy, at, info.st_uid, info.st_gid)
            return
        uid, gid = self._owners.of(info, path or "/")
        if self._ordinary and (uid, gid) == (info.st_uid, info.st_gid):
            return
        try:
            _chown(copy, at, uid, gid)
        except OSError as error:
            if not self._squash or error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            if not self._ordinary:
                _chown(copy, at, info.st_uid, info.st_gid)


def _chown(file: int | str, at: int | None, uid: int, gid: int) -> None:
    if at is None:
        os.chown(file, uid, gid)
    else:
        os.chown(file, uid, gid, dir_fd=at, follow_symlinks=False)


class _Copy:
    def __init__(self, meter: Meter | None, writing_back: WritingBack, giving: _Giving) -> None:
        self._meter = meter
        self._writing_back = writing_back
        self._unwritten = 0
        self._giving = giving
        self._links: dict[tuple[int, int], str] = {}
        self._root = -1
        self._ordinary = os.geteuid() != 0
        self._read = _READ | os.O_NOATIME
        self._ways: list[Callable[[int, int, int, Meter | None], bool]] = [_clone, _copy_in_kernel, _copy_by_hand]

    def run(self, src: str, dst: str) -> None:
        self._root = os.open(dst, _DIRECTORY)
        stack: list[_Frame] = []
        try:
            stack.append(self._enter(None, src, None, dst))
            while stack:
                self._step(stack)
        finally:
            for frame in stack:
                if frame.mode is not None and frame.src >= 0:
                    os.fchmod(frame.src, frame.mode)
                frame.close()
            os.close(self._root)

    def _step(self, stack: list[_Frame]) -> None:
        """Copy what is in the innermost directory up to the next directory in it, or finish it."""
        frame = stack[-1]
        while frame.names:
            name, regular = frame.names.pop()
            path = frame.path + name
            try:
                if regular and self._file(frame, name, path):
                    continue
                below = self._other(frame, name, path)
            except OSError as error:
                raise OSError(error.errno, f"copying: {error.strerror}", path) from error
            if below is not None:
                below.path = f"{path}/"
                stack.append(below)
                if len(stack) > _KEPT_OPEN:
                    stack[-1 - _KEPT_OPEN].close()
                return
        if len(stack) > 1:
            stack[-2].reopen(frame)
        self._finish(stack.pop())

    def _enter(self, where: int | None, src: str, dst_at: int | None, dst: str) -> _Frame:
        """Open a directory and its copy. Its own mode, owner and times are set when it is full."""
        info = os.stat(src, dir_fd=where, follow_symlinks=False)
        mode = None
        if self._ordinary and info.st_mode & 0o500 != 0o500:
            mode = stat.S_IMODE(info.st_mode)
            os.chmod(src, mode | 0o500, dir_fd=where)
        src_fd = os.open(src, _DIRECTORY, dir_fd=where)
        try:
            dst_fd = os.open(dst, _DIRECTORY, dir_fd=dst_at)
        except BaseException:
            os.close(src_fd)
            raise
        return _Frame(src_fd, dst_fd, info, mode)

    def _finish(self, frame: _Frame) -> None:
        try:
            self._dress(frame.src, frame.dst, frame.info, frame.path.rstrip("/"))
            if frame.mode is not None:
                os.fchmod(frame.src, frame.mode)
        finally:
            frame.close()

    def _file(self, frame: _Frame, name: str, path: str) -> bool:
        """Copy a regular file; tell whether the name is one."""
        try:
            src = self._open(frame.src, name)
        except FileNotFoundError:
            return False
        try:
            info = os.fstat(src)
            if not stat.S_ISREG(info.st_mode):
                return False
            if info.st_nlink > 1 and self._linked(frame, name, info, path):
                self._count(0)
                return True
            dst = os.open(name, _NEW, 0o600, dir_fd=frame.dst)
            try:
                if info.st_size:
                    self._content(src, dst, info.st_size)
                self._dress(src, dst, info, path)
            finally:
                os.close(dst)
        finally:
            os.close(src)
        self._count(info.st_size)
        return True

    def _open(self, at: int, name: str) -> int:
        """Open a file to read. An ordinary user's own that he may not read is opened to him for the moment."""
        try:
            return os.open(name, self._read, dir_fd=at)
        except PermissionError as error:
            if error.errno == errno.EPERM and self._read != _READ:
                self._read = _READ  # this user may not leave the times of others' files as they are
                return self._open(at, name)
            if not self._ordinary:
                raise
        mode = stat.S_IMODE(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
        os.chmod(name, mode | 0o400, dir_fd=at)
        try:
            return os.open(name, self._read, dir_fd=at)
        finally:
            os.chmod(name, mode, dir_fd=at)

    def _other(self, frame: _Frame, name: str, path: str) -> _Frame | None:
        """Copy what is no regular file; a directory is made, and given back to be filled."""
        try:
            info = os.stat(name, dir_fd=frame.src, follow_symlinks=False)
        except FileNotFoundError:
            return None  # an overlay lists a whiteout that hides nothing, and has no file of that name
        kind = stat.S_IFMT(info.st_mode)
        self._count(0)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=frame.dst)
            return self._enter(frame.src, name, frame.dst, name)
        if info.st_nlink > 1 and self._linked(frame, name, info, path):
            return None
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=frame.src), name, dir_fd=frame.dst)
        else:
            node = stat.S_IFIFO if kind == stat.S_IFSOCK else kind
            device = info.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
            os.mknod(name, node | 0o600, device, dir_fd=frame.dst)
        self._dress_by_name(frame, name, info, path)
        return None

    def _count(self, size: int) -> None:
        if self._meter is not None:
            self._meter.add(bytes=size, entries=1)

    def _linked(self, frame: _Frame, name: str, info: os.stat_result, path: str) -> bool:
        """Make another name of a file that is copied already; tell whether it was."""
        key = (info.st_dev, info.st_ino)
        first = self._links.setdefault(key, path)
        if first == path:
            return False
        at, opened = self._root, []
        try:
            while len(os.fsencode(first)) > _LONGEST:
                part = first[: _LONGEST // 4].rpartition("/")[0]
                at = os.open(part, _DIRECTORY, dir_fd=at)
                opened.append(at)
                first = first[len(part) + 1 :]
            os.link(first, name, src_dir_fd=at, dst_dir_fd=frame.dst, follow_symlinks=False)
        finally:
            for fd in opened:
                os.close(fd)
        return True

    def _content(self, src: int, dst: int, size: int) -> None:
        if size > _SMALL or self._ways[0] is _clone or not _copy_small(src, dst, size):
            while not self._ways[0](src, dst, size, self._meter):
                self._ways.pop(0)
            if self._ways[0] is _clone:
                return
        self._unwritten += size + _LEAST
        if self._unwritten > STEP:
            self._unwritten = 0
            self._writing_back.go()

    def _dress(self, src: int, dst: int, info: os.stat_result, path: str) -> None:
        """Give an open copy the owner, attributes, mode and times of what it was copied from."""
        self._giving.give(dst, None, info, path)
        for key in os.listxattr(src):
            self._xattr(lambda key=key: os.setxattr(dst, key, os.getxattr(src, key)))  # type: ignore[misc]
        os.fchmod(dst, stat.S_IMODE(info.st_mode))
        os.utime(dst, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _dress_by_name(self, frame: _Frame, name: str, info: os.stat_result, path: str) -> None:
        """Do the same for what cannot be opened."""
        self._giving.give(name, frame.dst, info, path)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=frame.dst)
        src, dst = f"/proc/self/fd/{frame.src}/{name}", f"/proc/self/fd/{frame.dst}/{name}"
        for key in os.listxattr(src, follow_symlinks=False):
            value = os.getxattr(src, key, follow_symlinks=False)
            self._xattr(lambda key=key, value=value: os.setxattr(dst, key, value, follow_symlinks=False))  # type: ignore[misc]
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=frame.dst, follow_symlinks=False)

    def _xattr(self, set_one: Callable[[], None]) -> None:
        """Set an attribute; one that this file system or this user cannot have is left out, as in Go's copy."""
        try:
            set_one()
        except OSError as error:
            if error.errno != errno.ENOTSUP and not (self._ordinary and error.errno in (errno.EPERM, errno.EACCES)):
                raise


def _copy_small(src: int, dst: int, size: int) -> bool:
    """Read and write a file by one call each; a hole of such a size would save nothing. Tell whether it came whole."""
    data = os.read(src, size + 1)
    return len(data) == size and os.write(dst, data) == size


def _clone(src: int, dst: int, _size: int, _meter: Meter | None) -> bool:
    """Let both files share their blocks."""
    from layerhold.linux.files import ficlone

    try:
        ficlone(dst, src)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _copy_in_kernel(src: int, dst: int, size: int, meter: Meter | None) -> bool:
    """Copy the parts that are no holes within the kernel."""
    os.ftruncate(dst, size)
    for start, end in _data(src, size):
        at = start
        while at < end:
            try:
                count = os.copy_file_range(src, dst, min(_PIECE, end - at), at, at)
            except OSError as error:
                if error.errno in _CANNOT:
                    return False
                raise
            if count == 0:
                break
            at += count
            if meter is not None:
                meter.within(at)
    return True


def _copy_by_hand(src: int, dst: int, size: int, meter: Meter | None) -> bool:
    """Read and write the parts that are no holes."""
    os.ftruncate(dst, size)
    for start, end in _data(src, size):
        at = start
        while at < end:
            block = os.pread(src, min(_BLOCK, end - at), at)
            if not block:
                break
            at += os.pwrite(dst, block, at)
            if meter is not None:
                meter.within(at)
    return True


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Give the parts of a file that are no holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            yield at, size
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(at, size)
