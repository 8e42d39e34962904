"""File systems in files, for tests that need one of a kind."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from layerhold.drivers import btrfs_subvolumes
from tests import programs, stores

SIZES = {"btrfs": 600, "xfs": 320}  # MiB: xfs about the smallest, btrfs since it frees space seconds later
_OTHERS = 64


@contextmanager
def disk(kind: str, *options: str) -> Iterator[Path]:
    """A folder on a file system of its own, made by `mkfs.<kind>` with `options`."""
    need_mkfs(kind)
    with stores.scratch(kind) as folder, _short(kind) as place:
        image = folder / "image"
        with image.open("wb") as file:
            file.truncate(SIZES.get(kind, _OTHERS) << 20)
        _run([f"mkfs.{kind}", "-q", *options, str(image)])
        _run(["mount", "-o", "loop", str(image), str(place)])
        try:
            yield place
        finally:
            for point in stores.mounts_below(place):
                _run(["umount", point])


@contextmanager
def _short(kind: str) -> Iterator[Path]:
    """An empty folder to mount on, by a short name, wherever the checkout is: Podman 4.3 wants one (stores.py)."""
    place = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
    try:
        yield place
    finally:
        place.rmdir()


def image(place: Path) -> Path:
    """The file that the file system mounted on a folder is in."""
    words = ["findmnt", "--noheadings", "--output", "SOURCE", str(place)]
    device = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    return Path(Path("/sys/block", Path(device).name, "loop/backing_file").read_text().strip())


def need_mkfs(kind: str) -> None:
    """Raise Unavailable where the program that makes file systems of a kind is missing."""
    if not shutil.which(f"mkfs.{kind}"):
        package = {"btrfs": "btrfs-progs", "xfs": "xfsprogs"}.get(kind, "e2fsprogs")
        raise programs.Unavailable(f"mkfs.{kind} is not installed (Debian: apt-get install {package})")


def copy(source: Path, to: Path, driver: str) -> None:
    """Copy a folder with stores of a driver; layers of btrfs stay subvolumes. The folder is `new_folder`'s."""
    if driver == "btrfs":
        btrfs_subvolumes.snapshot(str(source), str(to))
    else:
        subprocess.run(["cp", "-a", str(source), str(to)], check=True)


def new_folder(path: Path, driver: str) -> None:
    """Make a folder for stores of a driver, to be copied."""
    if driver == "btrfs":
        btrfs_subvolumes.create(str(path))
    else:
        path.mkdir()


def scratch_for(driver: str) -> AbstractContextManager[Path]:
    """A new folder for a store of a driver, on the file system that it needs."""
    return disk(driver) if driver in SIZES else stores.scratch(driver)


def _run(words: Sequence[str]) -> None:
    subprocess.run(words, check=True, capture_output=True)
