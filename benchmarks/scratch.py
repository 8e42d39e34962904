"""A new file system for each run.

ext4 does not hand out a deleted inode again for minutes and looks through all such inodes at each creation: on a file
system in use the order of the runs is measured, not the programs. So each run gets an ext4 of its own, in a copy of an
image that is prepared once for each job.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 8 << 30
RESERVE = 512 << 20  # bytes of memory


@contextmanager
def image(within: Path, fill: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Make an ext4 in a sparse file in a new folder below `within`, with what `fill` puts on it."""
    with TemporaryDirectory(dir=within) as name:
        made = Path(name, "image")
        with made.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", str(made)], check=True)
        if fill is not None:
            with _mounted(made) as fs:
                fill(fs)
        yield made


@contextmanager
def mounted_copy(image: Path) -> Iterator[Path]:
    """Mount a copy of an image, beside it, and give its path; the copy goes at the end."""
    with TemporaryDirectory(dir=image.parent) as name:
        copy = Path(name, "image")
        subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
        with _mounted(copy) as fs:
            yield fs


@contextmanager
def _mounted(image: Path) -> Iterator[Path]:
    fs = image.with_name("fs")
    fs.mkdir(exist_ok=True)
    # The file is the disk: what is written is not to be copied into memory another time on its way there.
    found = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", str(image)], stdout=subprocess.PIPE, text=True, check=True
    )
    device = found.stdout.strip()
    try:
        subprocess.run(["mount", device, str(fs)], check=True)
        try:
            yield fs
        finally:
            unmount_below(fs)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def unmount_below(top: Path) -> None:
    """Unmount `top` and everything mounted below it, the latest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    for point in reversed([point for point in points if point == str(top) or point.startswith(f"{top}/")]):
        subprocess.run(["umount", point], check=True)


def warm_memory(size: int = RESERVE) -> None:
    """Touch memory, so that a virtual machine has it back from its host before a run needs it.

    In a child, since the kernel counts the peak of whoever starts a program as the program's own.
    """
    touch = f"block = bytearray({size})\nfor offset in range(0, {size}, 4096): block[offset] = 1"
    subprocess.run([sys.executable, "-I", "-c", touch], check=True)
