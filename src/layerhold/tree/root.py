"""What can be done to names in a directory, without leaving it.

The way to a name is walked inside (way.py). Then the operation acts on the name, and never follows it. So whatever a
tar contains, and whoever swaps a directory for a link meanwhile, nothing outside is touched.

Some calls take only paths (attributes, and modes of what cannot be opened). They go through `/proc/self/fd/N`, here and
in way.py alone; the name after N is not followed.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from layerhold.blocks import contextmanager
from layerhold.tree.unlocked import lacks_rights
from layerhold.tree.walk import LONGEST_PATH
from layerhold.tree.way import Way, by_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    Name = tuple[bytes, bool, bool]

_MAX_LINKS = 40  # as the kernel


class Root(Way):
    """The directory `path`, as a context manager; `filling` says that it is being filled from an archive."""

    def find_directory(self, path: bytes) -> int:
        """Open the directory `path`, a link at its end followed as well; the descriptor is only a place (O_PATH)."""
        return self._open_directory(path)

    def follow(self, path: bytes) -> bytes:
        """Give the path of what `path`, which is no directory, leads to when links at its end are followed, too."""
        for _ in range(_MAX_LINKS):
            if not stat.S_ISLNK(self.lstat(path).st_mode):
                return path
            target = self.readlink(path)
            path = target.lstrip(b"/") if target.startswith(b"/") else path[: path.rfind(b"/") + 1] + target
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))

    # --- making

    def make_parents(self, path: bytes, mode: int, owner: tuple[int, int] | None) -> None:
        """Make the directories on the way to `path` that are missing. Raises FileExistsError at a dangling link."""
        try:
            self._inside(path.rpartition(b"/")[0])
        except FileNotFoundError:
            pass
        else:
            return
        parts = path.split(b"/")[:-1]
        for count in range(1, len(parts) + 1):
            directory = b"/".join(parts[:count])
            try:
                os.close(self._open_directory(directory))
            except FileNotFoundError:
                self.mkdir(directory, mode)
                if owner is not None:
                    self.set_owner(directory, *owner)
                self.set_mode(directory, mode)

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        """Make a directory."""
        at, name = self.at(path)
        os.mkdir(name, mode, dir_fd=at)

    def open_directory(self, path: bytes) -> int:
        """Open the directory `path` (b"": the root), for calls on its descriptor that set its owner, mode and times."""
        if not path:
            self.leave()  # or leaving later would undo what the caller does
            return self._reopen_directory(b".", self._root)
        at, name = self.at(path)
        return self._reopen_directory(name, at)

    def set_directory_mode(self, fd: int, mode: int) -> None:
        """Set the mode of the directory that is open as `fd`; rights that its owner needs meanwhile go at `settle`."""
        if self._ordinary and mode & 0o700 != 0o700:
            self._unlocked.add(self._true_path(fd), mode)
            mode |= 0o700
        os.fchmod(fd, mode)

    def create(self, path: bytes) -> int:
        """Make a regular file that is not there yet, and return it open for writing, mode 0600."""
        at, name = self.at(path)
        return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600, dir_fd=at)

    def owner_of_new(self, fd: int) -> tuple[int, int]:
        """Give the owner of `fd`, which was just created: the same for all files in a directory."""
        if self._born is None:
            info = os.fstat(fd)
            self._born = info.st_uid, info.st_gid
        return self._born

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a symbolic link; `target` is stored as it is."""
        at, name = self.at(path)
        os.symlink(target, name, dir_fd=at)

    def link(self, target: bytes, path: bytes) -> None:
        """Make `path` another name of `target`, which is looked up inside the root; a link is linked itself."""
        at, name = self.at(path)
        directory, _, old = target.rpartition(b"/")
        if directory == self._at:
            os.link(old, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
            return
        fd = self._open_directory(directory)
        try:
            os.link(old, name, src_dir_fd=fd, dst_dir_fd=at, follow_symlinks=False)
        finally:
            os.close(fd)

    def mknod(self, path: bytes, mode: int, device: int = 0) -> None:
        """Make a device node or a FIFO; `mode` has the kind."""
        at, name = self.at(path)
        os.mknod(name, mode, device, dir_fd=at)

    # --- owners, modes, times, attributes of what is there

    def set_owner(self, path: bytes, uid: int, gid: int) -> None:
        """Set the owner."""
        at, name = self.at(path)
        os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)

    def set_mode(self, path: bytes, mode: int) -> None:
        """Set the mode; a symbolic link has none (OSError)."""
        at, name = self.at(path)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=at)
        try:
            os.chmod(by_number(fd), mode)
        finally:
            os.close(fd)

    def set_times(self, path: bytes, atime: int, mtime: int) -> None:
        """Set the times, in nanoseconds."""
        at, name = self.at(path)
        os.utime(name, ns=(atime, mtime), dir_fd=at, follow_symlinks=False)

    def set_xattr(self, path: bytes, key: bytes, value: bytes) -> None:
        """Set an extended attribute (path b"": of the root)."""
        os.setxattr(self._proc_path(path), key, value, follow_symlinks=not path)

    def set_directory_xattr(self, path: bytes, key: bytes, value: bytes) -> None:
        """Set an extended attribute of the directory `path`, which may be named through a link."""
        os.setxattr(by_number(self._inside(path)), key, value)

    def xattrs(self, path: bytes, wanted: Callable[[bytes], bool] | None = None, *, fd: int = -1) -> dict[bytes, bytes]:
        """Give the extended attributes (path b"": of the root), or only those whose names are `wanted`.

        `fd` is `path` itself, if that is open for reading: it costs no way there.
        """
        place: bytes | int
        place, follow = (fd, True) if fd >= 0 else (self._proc_path(path), not path)
        try:
            names = os.listxattr(place, follow_symlinks=follow)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            return {}
        if not names:
            return {}
        keys = [key for key in map(os.fsencode, names) if wanted is None or wanted(key)]
        try:
            return {key: os.getxattr(place, key, follow_symlinks=follow) for key in keys}
        except PermissionError:
            if not self._ordinary or not path:
                raise
        with self._readable(path):
            return {key: os.getxattr(place, key, follow_symlinks=follow) for key in keys}

    def _proc_path(self, path: bytes) -> bytes:
        if not path:
            return by_number(self._root)
        at, name = self.at(path)
        return b"%b/%b" % (by_number(at), name)

    def lstat(self, path: bytes) -> os.stat_result:
        """Give what is known of `path` itself (path b"": of the root)."""
        if not path:
            return os.fstat(self._root)
        at, name = self.at(path)
        return os.stat(name, dir_fd=at, follow_symlinks=False)

    def has(self, path: bytes) -> bool:
        """Tell whether there is a name `path`, which may be too long for one."""
        try:
            self.lstat(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                raise
            return False
        return True

    def listing(self, directory: bytes) -> list[Name]:
        """Give what is in `directory`, by the bytes of the names.

        Of each: its path from the root, whether it is a directory, and whether it is neither that nor a regular file or
        a link. The kernel tells so much without being asked for each.
        """
        above = directory + b"/" if directory else b""
        encoding = sys.getfilesystemencoding()
        found = []
        fd = self.open_directory(directory)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    path = above + entry.name.encode(encoding, "surrogateescape")
                    is_directory = entry.is_dir(follow_symlinks=False)
                    is_special = not (is_directory or entry.is_file(follow_symlinks=False) or entry.is_symlink())
                    found.append((path, is_directory, is_special))
        finally:
            os.close(fd)
        found.sort()
        return found

    def everything(self) -> Generator[os.stat_result]:
        """Give what `lstat` says of each name in the tree, in any order."""
        left = [b""]
        while left:
            directory = left.pop()
            above = directory + b"/" if directory else b""
            if self._ordinary:
                self._inside(directory)  # which gives this user the right to look at what is in it
            fd = self.open_directory(directory)
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            left.append(above + os.fsencode(entry.name))
                        yield entry.stat(follow_symlinks=False)
            finally:
                os.close(fd)

    def is_empty(self) -> bool:
        """Tell whether the root has no entries."""
        fd = self.open_directory(b"")
        try:
            with os.scandir(fd) as names:
                return next(names, None) is None
        finally:
            os.close(fd)

    def open_file(self, path: bytes, mode: int = 0) -> int:
        """Open the regular file `path` for reading; `mode` is what `lstat` has just said of it, if it was asked.

        Raises OSError (EINVAL when it is something else).
        """
        at, name = self.at(path)
        mode = mode or os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode):  # opening a device or a FIFO has effects, so look first
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(name, flags, dir_fd=at)
        except PermissionError:
            if not self._ordinary:
                raise
        with self._readable(path):
            return os.open(name, flags, dir_fd=at)

    @contextmanager
    def _readable(self, path: bytes) -> Iterator[None]:
        """Let this user read his own file `path` for a while."""
        mode = stat.S_IMODE(self.lstat(path).st_mode)
        self.set_mode(path, mode | 0o400)
        try:
            yield
        finally:
            self.set_mode(path, mode)

    def readlink(self, path: bytes) -> bytes:
        """Give what a symbolic link says."""
        at, name = self.at(path)
        return os.readlink(name, dir_fd=at)

    # --- removing

    def remove(self, path: bytes, *, keep: Callable[[bytes], bool] | None = None) -> bool:
        """Remove `path` and all below it, but not what `keep` says of; tell whether all of it went.

        Raises FileNotFoundError when there is no such name.
        """
        if stat.S_ISDIR(self.lstat(path).st_mode):
            return self._remove_directory(path, keep)
        if keep is not None and keep(path):
            return False
        at, name = self.at(path)
        os.unlink(name, dir_fd=at)
        self.leave()  # it may have been a link on the way to the directory that is open
        return True

    def prune(self, path: bytes, *, keep: Callable[[bytes], bool]) -> None:
        """Remove all that is below the directory `path` but not what `keep` says of."""
        for child in self._remove_files(path, keep):
            self._remove_directory(child, keep)

    def _remove_directory(self, top: bytes, keep: Callable[[bytes], bool] | None) -> bool:
        # Depth is up to the archive: no recursion, and no descriptor stays open on the way down.
        gone, stack = True, [(top, False)]
        while stack:
            path, emptied = stack.pop()
            if not emptied:
                children = self._remove_files(path, keep)
                stack.append((path, True))
                stack.extend((child, False) for child in children)
            elif (keep is not None and keep(path)) or not self._rmdir(path):
                gone = False
        return gone

    def _remove_files(self, path: bytes, keep: Callable[[bytes], bool] | None) -> list[bytes]:
        """Remove what is no directory from the directory `path`; give the paths of its directories."""
        directories = []
        with self._emptying(path) as at:
            fd = self._reopen_directory(b".", at)
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        child = path + b"/" + name if path else name
                        if entry.is_dir(follow_symlinks=False):
                            directories.append(child)
                        elif keep is None or not keep(child):
                            os.unlink(name, dir_fd=fd)
            finally:
                os.close(fd)
        return directories

    def _rmdir(self, path: bytes) -> bool:
        directory, _, name = path.rpartition(b"/")
        with self._emptying(directory) as at:
            try:
                os.rmdir(name, dir_fd=at)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                return False
            if self._unlocked:
                self._forget(at, name)
        return True

    def _forget(self, at: int, name: bytes) -> None:
        try:
            path = self._true_path(at)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return  # nothing that lies so deep was noted
        self._unlocked.forget((path + b"/" + name).lstrip(b"/"))

    @contextmanager
    def _emptying(self, directory: bytes) -> Iterator[int]:
        """Open a directory (O_PATH) that names are removed from; it may be named through a link."""
        self.leave()
        at = self._however_deep(directory)
        try:
            before = os.fstat(at)
            mode = stat.S_IMODE(before.st_mode)
            locked = self._ordinary and lacks_rights(before)
            if locked:
                os.chmod(by_number(at), mode | 0o700)
            try:
                yield at
            finally:
                if locked:
                    os.chmod(by_number(at), mode)
            if self._filling:
                os.utime(by_number(at), ns=(before.st_atime_ns, before.st_mtime_ns))
        finally:
            os.close(at)

    def _however_deep(self, directory: bytes) -> int:
        """Open a directory that may lie deeper than a path can say: piece by piece, each inside the one before."""
        fd = self._open_directory(directory[: _cut(directory)])
        while len(directory) > LONGEST_PATH:
            directory = directory[_cut(directory) + 1 :]
            above = fd
            try:
                fd = self._resolve(above, directory[: _cut(directory)])
            finally:
                os.close(above)
        return fd


def _cut(path: bytes) -> int:
    """Say how much of a path the kernel takes at once, up to a slash."""
    return len(path) if len(path) <= LONGEST_PATH else path.rindex(b"/", 0, LONGEST_PATH + 1)
