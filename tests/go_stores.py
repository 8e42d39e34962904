"""Stores that Go's program made, kept as they were: `tests/fixtures/<driver>.tar.zst`.

    python -m tests.go_stores     makes them anew, as root, with the program of Debian 12 (1.43)

Each has two layers with every kind of file and of change (layerhold.testing.everything), an image with big data, and a
container. Those of overlay and vfs are the graph root; that of btrfs is a whole file system, since subvolumes go into
no tar; those of devicemapper and zfs are made and used in a second kernel (tests/vm): the graph root, with the files of
the pool. (aufs: no program makes such stores any more; tests/aufs_store.py does, from what is known of the layout.)
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import layerhold
from layerhold.testing import everything, trees
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
    with stores.scratch(f"go-{driver}") as folder:
        unpack(driver, folder)
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


def unpack(driver: str, folder: Path) -> None:
    """Unpack what is kept of a driver into a folder."""
    _run(["tar", *_TAR, "-C", str(folder), "-I", "zstd", "-xpf", str(FOLDER / f"{driver}.tar.zst")])


def holds_all(store: layerhold.Store) -> None:
    """Everything of it is there, and right."""
    for id, tar in layers().items():
        with store.layers[id].diff(compression=0) as stream:
            assert stream.read() == tar
    can = Can(owners=True, devices=True, attributes=True)
    with store.layers[TOP].mount() as top:
        found = trees.rows(top)
        del found[b""]
        assert not trees.differences(everything.expected(everything.base(can), everything.top(can)), found)
    assert store.layers["a1"].id == BASE
    image = store.images["localhost/kept:1"]
    assert (image.id, image.layer_id, image.data["key"]) == (IMAGE, TOP, DATA)
    box = store.containers["box"]
    assert (box.id, box.image_id, box.metadata) == (BOX, IMAGE, '{"kept": true}')
    assert store.layers[box.layer_id].parent_id == TOP
    report = store.check(unreferenced_for=1e9)
    assert report.ok, vars(report)


# -- making them


def main() -> None:
    """Make the stores."""
    from tests.vm import test_devicemapper, zfs_real

    for driver in ("overlay", "vfs"):
        with stores.scratch("made") as folder:
            fill(functools.partial(stores.Place(folder, driver).go, version=VERSION))
            pack(folder, "root", FOLDER / f"{driver}.tar.zst")
    with disks.disk("btrfs") as place:
        fill(functools.partial(stores.Place(place, "btrfs").go, version=VERSION))
        image = disks.image(place)
        for point in stores.mounts_below(place):
            _run(["umount", point])
        pack(image.parent, "image", FOLDER / "btrfs.tar.zst")
    for driver, in_guest in (("devicemapper", test_devicemapper.in_guest), ("zfs", zfs_real.in_guest)):
        with tempfile.TemporaryDirectory() as job:
            in_guest("keep", VERSION, Path(job))
            shutil.move(Path(job, "packed"), FOLDER / f"{driver}.tar.zst")


def fill(go: Callable[..., object]) -> None:
    """Make what is in such a store, by Go's program."""
    parent: list[str] = []
    for id, tar in layers().items():
        go("import-layer", "-i", id, "-n", id[:2], *parent, stdin=tar)
        parent = [id]
    go("create-image", "-i", IMAGE, "-n", "localhost/kept:1", TOP)
    go("set-image-data", IMAGE, "key", stdin=DATA)
    go("create-container", "-i", BOX, "-n", "box", "-m", json.dumps({"kept": True}), IMAGE)
    go("shutdown")


def pack(folder: Path, name: str, into: Path) -> None:
    """Pack what is called `name` in a folder."""
    _run(["tar", *_TAR, "-C", str(folder), "-I", "zstd -19", "-cpf", str(into), name])


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
