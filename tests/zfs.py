"""Something to have layers of zfs in: a pool of OpenZFS where the machine has that, else a scripted one.

So the same tests run on both: in every run of the tests on the script (zfs_script.py), and by `make test-zfs` in a
guest that has OpenZFS.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import functools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerhold.linux import mounts
from layerhold.linux.calls import check
from tests import stores, zfs_script

IS_REAL = os.path.exists("/dev/zfs")
_PLACE = "SCRIPTED_ZFS"
_CHECKOUT = Path(__file__).resolve().parent.parent
_POOL_SIZE = 512 << 20
_ATIME = 0x70  # MOUNT_ATTR__ATIME: all that is said of times of reading
_real_detached = mounts.detached


class Zfs:
    """A folder for stores, and a dataset for their layers. `real`: it is of OpenZFS."""

    def __init__(self, folder: Path, top: str) -> None:
        self.folder = folder
        self.top = top
        self.options = (f"zfs.fsname={top}",)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of zfs."""
        return subprocess.run(words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def names(self, kind: str = "filesystem") -> list[str]:
        """What there is below the top."""
        done = self.run("zfs", "list", "-Hp", "-d", "2", "-t", kind, "-o", "name", self.top)
        assert done.returncode == 0, done.stderr
        return [name.removeprefix(f"{self.top}/") for name in done.stdout.split() if name != self.top]


@contextmanager
def place() -> Iterator[Zfs]:
    """A new dataset, and a folder; both go at the end, with all that is mounted in the folder."""
    with stores.scratch("zfs") as folder:
        yield from _on_a_pool(folder) if IS_REAL else _scripted(folder)


def _on_a_pool(folder: Path) -> Iterator[Zfs]:
    top = f"{_pool()}/{folder.name}"
    _done("zfs", "create", "-o", "mountpoint=legacy", top)
    try:
        yield Zfs(folder, top)
    finally:
        for point in stores.mounts_below(folder):
            mounts.umount(point, mounts.MNT_DETACH)
        _done("zfs", "destroy", "-R", top)


@functools.cache
def _pool() -> str:
    """A pool in a file, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix="pool-", dir="/run"))  # a loop device stands on no overlay
    atexit.register(shutil.rmtree, folder)
    with (folder / "image").open("wb") as file:
        file.truncate(_POOL_SIZE)
    loop = _done("losetup", "-f", "--show", str(folder / "image")).strip()
    atexit.register(_done, "losetup", "-d", loop)
    pool = f"test{os.getpid()}"
    _done("zpool", "create", "-O", "xattr=sa", "-O", "acltype=posixacl", "-m", "none", pool, loop)
    atexit.register(_done, "zpool", "destroy", "-f", pool)
    return pool


def _done(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _scripted(folder: Path) -> Iterator[Zfs]:
    """Put the scripted programs first in PATH; have this Python, and those that it starts, mount by `detached`."""
    pool, programs, site = (folder / name for name in (".pool", ".programs", ".site"))
    for directory in (pool, programs, site):
        directory.mkdir()
    for name in ("zfs", "zpool"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -IS {zfs_script.__file__} {name} {pool} "$@"\n')
        (programs / name).chmod(0o755)
    (site / "sitecustomize.py").write_text("from tests import zfs\nzfs.mount_by_the_script()\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", f"{site}:{_CHECKOUT}:{_CHECKOUT}/src")
        patch.setenv(_PLACE, str(pool))
        patch.setattr(mounts, "detached", detached)
        with zfs_script.State(pool).held() as state:
            zfs_script.create_pool(state)
        yield Zfs(folder, f"{zfs_script.POOL}/layers")


@contextmanager
def another_namespace() -> Iterator[None]:
    """A process in a mount namespace of its own, which has all mounts of this one as they are now."""
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def mount_by_the_script() -> None:
    """Do in this process as in the one of the tests."""
    mounts.detached = detached


def detached(kind: str, source: str, options: Sequence[str], flags: int = 0, *, read_only: bool = False) -> int:
    """What `mounts.detached` is to a dataset: here a mount of its folder."""
    if kind != "zfs":
        return _real_detached(kind, source, options, flags, read_only=read_only)
    more, _words = mounts.apart(options)  # zfs passes over words that it does not know
    with zfs_script.State(Path(os.environ[_PLACE])).held() as state:
        if source not in state.rows:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        data = state.data(state.rows[source])
    return _bound(data, flags | more)


def _bound(path: Path, flags: int) -> int:
    at = mounts._open_tree(mounts._AT_FDCWD, os.fsencode(path), mounts._OPEN_TREE_CLONE | os.O_CLOEXEC)
    fd = check(at, "open_tree", str(path))
    wanted = flags & (mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
    times = sum(attribute for flag, attribute in mounts._ATTRIBUTES.items() if flags & flag)
    attributes = struct.pack("=QQQQ", wanted | times, _ATIME if times else 0, 0, 0)  # struct mount_attr
    done = mounts._mount_setattr(
        fd, b"", mounts._AT_EMPTY_PATH, ctypes.create_string_buffer(attributes), len(attributes)
    )
    check(done, "mount_setattr", str(path))
    return fd
