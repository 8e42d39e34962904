"""Stores that Go's program made, kept as they were: `tests/fixtures/<driver>.tar.zst`.

    python -m tests.go_stores     makes them anew, as root, with the program of Debian 12 (1.43)

Each has two layers with every kind of file and of change (layerhold.testing.everything), an image with big data, and a
container. Those of overlay and vfs are the graph root; that of btrfs is a whole file system, since subvolumes go into
no tar. (aufs: no program makes such stores any more; tests/aufs_store.py does, from what is known of the layout.)
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerhold.testing import everything
from layerhold.testing.everything import Can
from tests import disks, stores

FOLDER = Path(__file__).resolve().parent / "fixtures"
VERSION = "1.43"
BASE, TOP, IMAGE, BOX = ("a1" * 32, "a2" * 32, "a3" * 32, "a4" * 32)
DATA = b"big data\n"
_TAR = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse"]


def layers() -> dict[str, bytes]:
    """The tars that the layers were made from; devices and capabilities are in them, so root is needed for all."""
    can = Can(owners=True, devices=True, attributes=True)
    return {BASE: everything.as_tar(everything.base(can)), TOP: everything.as_tar(everything.top(can))}


@contextmanager
def unpacked(driver: str) -> Iterator[Path]:
    """A folder with the graph root of the store, `root`."""
    packed = FOLDER / f"{driver}.tar.zst"
    with stores.scratch(f"go-{driver}") as folder:
        _run(["tar", *_TAR, "-C", str(folder), "-I", "zstd", "-xpf", str(packed)])
        if driver != "btrfs":
            yield folder
            return
        place = folder / "disk"
        place.mkdir()
        _run(["mount", "-o", "loop", str(folder / "image"), str(place)])
        try:
            yield place
        finally:
            for point in stores.mounts_below(place):
                _run(["umount", point])


def main() -> None:
    """Make the stores."""
    FOLDER.mkdir(exist_ok=True)
    for driver in ("overlay", "vfs"):
        with stores.scratch("made") as folder:
            _make(stores.Place(folder, driver))
            _pack(driver, folder, "root")
    with disks.disk("btrfs") as place:
        _make(stores.Place(place, "btrfs"))
        for point in stores.mounts_below(place):
            _run(["umount", point])
        _pack("btrfs", place.parent, "image")


def _make(place: stores.Place) -> None:
    parent: list[str] = []
    for id, tar in layers().items():
        place.go("import-layer", "-i", id, "-n", id[:2], *parent, stdin=tar, version=VERSION)
        parent = [id]
    place.go("create-image", "-i", IMAGE, "-n", "localhost/kept:1", TOP, version=VERSION)
    place.go("set-image-data", IMAGE, "key", stdin=DATA, version=VERSION)
    place.go("create-container", "-i", BOX, "-n", "box", "-m", json.dumps({"kept": True}), IMAGE, version=VERSION)
    place.go("shutdown", version=VERSION, check=False)


def _pack(driver: str, folder: Path, name: str) -> None:
    packed = FOLDER / f"{driver}.tar.zst"
    _run(["tar", *_TAR, "-C", str(folder), "-I", "zstd -19", "-cpf", str(packed), name])
    print(packed, packed.stat().st_size)


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
