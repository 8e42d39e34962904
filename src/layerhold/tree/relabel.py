"""SELinux labels of files: those of a tree of any depth, which containers are to use.

A tree of the host gets the label of one container's files, or the one that all containers share (`labels.shared`).
"""

from __future__ import annotations

import errno
import os
import stat

from layerhold.errors import BadLabel
from layerhold.linux import selinux
from layerhold.tree.walk import KEPT_OPEN, Opened

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What nobody could log in without, or start programs, with other labels. As github.com/opencontainers/selinux has it.
_OF_THE_MACHINE = frozenset(
    {
        *("/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64"),
        *("/media", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib"),  # noqa: S108 - nothing is put there
        "/var/log",
    }
)


def relabel(path: str, label: str) -> None:
    """Label the file `path`, or the directory with all that is in it, each directory after what is in it.

    Links get labels of their own and are not followed. Nothing happens without a label, where SELinux is off, and on a
    file system that has no labels. What disappears meanwhile is no error. Raises BadLabel, OSError.
    """
    if not label or not selinux.enabled():
        return
    _refuse_the_machines_own(path, label)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        _Relabelling(label).run(path)
    else:
        selinux.label(path, label)


def _refuse_the_machines_own(path: str, label: str) -> None:
    real = os.path.realpath(path)
    if real in _OF_THE_MACHINE or os.path.dirname(real) == "/home":
        raise BadLabel(label, f"relabelling {real} is not allowed: the machine itself needs its labels")


class _Directory(Opened):
    """One directory on the way down, and those in it that are left."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.left: list[str] = []


class _Relabelling:
    """A walk over a tree of any depth: names are used within their directory, and few directories are open at once."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._seen: set[tuple[int, int]] = set()  # files with several names

    def run(self, path: str) -> None:
        """Label a directory and all that is in it."""
        way = [_Directory(os.open(path, _DIRECTORY))]
        try:
            self._files(way[0])
            while way:
                here = way[-1]
                if here.left:
                    self._enter(way, here.left.pop())
                    continue
                selinux.label(here.fd, self._label)
                if len(way) > 1:
                    way[-2].reopen(here)
                way.pop().close()
        finally:
            for directory in way:
                directory.close()

    def _enter(self, way: list[_Directory], name: str) -> None:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=way[-1].fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # removed, or replaced, meanwhile
                return
            raise
        way.append(_Directory(fd))
        self._files(way[-1])
        if len(way) > KEPT_OPEN:
            way[-1 - KEPT_OPEN].close()

    def _files(self, directory: _Directory) -> None:
        """Label what is no directory, each inode once, and note the directories."""
        with os.scandir(directory.fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directory.left.append(entry.name)
                elif self._is_new(entry):
                    selinux.label(f"/proc/self/fd/{directory.fd}/{entry.name}", self._label)

    def _is_new(self, entry: os.DirEntry[str]) -> bool:
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        key = info.st_dev, info.st_ino
        known = key in self._seen
        if info.st_nlink > 1:
            self._seen.add(key)
        return not known
