"""A disk that notes every write and every flush, with a file system on it.

    <folder>/base    the disk as it was when the file system had just been made
    <folder>/now     the disk as it is
    <folder>/log     what was done to it since, in order (`Entry`)
    <folder>/fuse/   where a process of its own serves `now` as one file, and notes what is done to it
    <folder>/disk/   where that file is mounted, through a loop device

The log is longer by an entry before the kernel hears that a write or a flush is done. So whoever looks at the length of
the log when an operation has returned knows that all that this operation made durable is in the log up to there.

The process is `python -m tests.crash.recorded_disk <now> <log> <directory>`; FUSE is spoken by mfusepy over libfuse3.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from layerhold.linux import mounts
from tests import programs, stores

SIZE = 320 << 20  # XFS takes no less than 300 MiB
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
ROOT = Path(__file__).resolve().parent.parent.parent
_HEAD = struct.Struct("<cQI")  # kind, offset on the disk, size; the bytes of a write follow
_WRITE, _FLUSH = b"W", b"F"
_PATIENCE = 20.0  # seconds


class Entry(NamedTuple):
    """A write of `data` at `offset` of the disk, or, without data, a flush; in the log up to `end`."""

    end: int
    offset: int
    data: memoryview | None


def read_log(path: Path) -> list[Entry]:
    """Give all entries of a log."""
    log = memoryview(path.read_bytes())
    found = []
    at = 0
    while at < len(log):
        kind, offset, size = _HEAD.unpack_from(log, at)
        start, at = at + _HEAD.size, at + _HEAD.size + size
        found.append(Entry(at, offset, log[start:at] if kind == _WRITE else None))
    return found


def entry_in_log(offset: int = 0, data: bytes | None = None) -> bytes:
    """Give a write, or without data a flush, as it is in the log."""
    return _HEAD.pack(_FLUSH, 0, 0) if data is None else _HEAD.pack(_WRITE, offset, len(data)) + data


class RecordedDisk:
    """A disk that is being recorded, its file system mounted on `mount_point`."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "base"
        self.log = folder / "log"
        self.mount_point = folder / "disk"

    def position(self) -> int:
        """Say how long the log is."""
        return self.log.stat().st_size


def need(filesystem: str) -> None:
    """Raise Unavailable for what is missing on this machine."""
    try:
        import mfusepy  # noqa: F401
    except ImportError as error:
        raise programs.Unavailable("mfusepy is not installed (PyPI)") from error
    except OSError as error:
        raise programs.Unavailable("libfuse3 is not installed (Debian: apt-get install fuse3)") from error
    if not os.path.exists("/dev/fuse"):
        raise programs.Unavailable("this kernel has no FUSE (/dev/fuse)")
    if not shutil.which(MAKE[filesystem][0]):
        raise programs.Unavailable(f"{MAKE[filesystem][0]} is not installed")


@contextmanager
def recording(folder: Path, filesystem: str) -> Iterator[RecordedDisk]:
    """Make a disk in `folder`, with a file system on it, and record what happens to it in the block."""
    need(filesystem)
    disk = RecordedDisk(folder)
    now, fuse = folder / "now", folder / "fuse"
    for directory in (fuse, disk.mount_point):
        directory.mkdir(exist_ok=True)
    with now.open("xb") as file:
        file.truncate(SIZE)
    subprocess.run([*MAKE[filesystem], str(now)], check=True, capture_output=True)
    copy_sparse(now, disk.base)
    disk.log.touch()
    words = [sys.executable, "-m", "tests.crash.recorded_disk", str(now), str(disk.log), str(fuse)]
    with subprocess.Popen(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/src"}) as server:
        try:
            _wait(lambda: (fuse / "disk").exists() or server.poll() is not None)
            with mounted(fuse / "disk", disk.mount_point, filesystem):
                yield disk
        finally:
            if str(fuse) in stores.mounts_below(folder):
                _wait(lambda: _unmounted(fuse))
            with suppress(subprocess.TimeoutExpired):
                server.wait(_PATIENCE)
            server.kill()


@contextmanager
def mounted(image: Path, place: Path, filesystem: str) -> Iterator[None]:
    """Mount an image through a loop device, which goes with the mount; at the end nothing is mounted in `place`.

    Raises AssertionError for what cannot be mounted.
    """
    words = ["mount", "-t", filesystem, "-o", "loop", str(image), str(place)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"the file system cannot be mounted: {done.stderr.strip()}"
    try:
        yield
    finally:
        for point in stores.mounts_below(place):
            _wait(lambda point=Path(point): _unmounted(point))  # type: ignore[misc]


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file, the holes as holes."""
    subprocess.run(["cp", "--sparse=auto", str(source), str(target)], check=True)


def _unmounted(point: Path) -> bool:
    try:
        mounts.umount(str(point))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not until():
        assert time.monotonic() < end, "waited too long for the recorder"
        time.sleep(0.005)


def _serve(now: str, log: str, directory: str) -> None:
    """Serve the disk until it is unmounted."""
    import mfusepy

    disk, notes = os.open(now, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_APPEND)

    class Disk(mfusepy.Operations):  # type: ignore[misc]
        """One file, `disk`."""

        use_ns = True

        def getattr(self, path: str, _fh: object = None) -> dict[str, int]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            if path == "/disk":
                return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": SIZE}
            raise mfusepy.FuseOSError(errno.ENOENT)

        def readdir(self, _path: str, _fh: object) -> list[str]:
            return [".", "..", "disk"]

        def open(self, _path: str, _flags: int) -> int:
            return 0

        def read(self, _path: str, size: int, offset: int, _fh: object) -> bytes:
            return os.pread(disk, size, offset)

        def write(self, _path: str, data: bytes, offset: int, _fh: object) -> int:
            os.write(notes, entry_in_log(offset, data))
            return os.pwrite(disk, data, offset)

        def fsync(self, _path: str, _data_only: bool, _fh: object) -> int:
            os.write(notes, entry_in_log())
            return 0

        def fallocate(self, *_args: Any) -> int:
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)  # nothing is discarded, and zeros are written

    # One call at a time: what was noted first was done first.
    mfusepy.FUSE(Disk(), directory, foreground=True, nothreads=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
