"""A new file system for each round.

ext4 does not hand out a deleted inode again for minutes and looks through all such inodes at each creation: on a file
system in use the order of the runs is measured, not the programs. So each run gets an ext4 of its own.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 6 << 30


@contextmanager
def fresh_filesystem(within: Path) -> Iterator[Path]:
    """Make an ext4 in a sparse file below `within`, mount it, and give its path; all of it goes at the end."""
    with TemporaryDirectory(dir=within) as name:
        image, mounted = Path(name, "image"), Path(name, "fs")
        with image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", str(image)], check=True)
        mounted.mkdir()
        subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
        try:
            yield mounted
        finally:
            unmount_below(mounted)


def unmount_below(top: Path) -> None:
    """Unmount `top` and everything mounted below it, the latest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    for point in reversed([point for point in points if point == str(top) or point.startswith(f"{top}/")]):
        subprocess.run(["umount", point], check=True)


def warm_memory(size: int = 2 << 30) -> None:
    """Touch memory, so that a virtual machine has it back from its host before a run needs it.

    In a child, since the kernel counts the peak of whoever starts a program as the program's own.
    """
    touch = f"block = bytearray({size})\nfor offset in range(0, {size}, 4096): block[offset] = 1"
    subprocess.run([sys.executable, "-I", "-c", touch], check=True)
