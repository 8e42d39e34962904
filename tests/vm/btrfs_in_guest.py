"""What is done on btrfs in the guest (test_btrfs.py), and written down there in `result.json`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from layerhold import Store
from layerhold.config import Config
from layerhold.drivers import btrfs_subvolumes
from layerhold.linux import btrfs
from tests.stores import packed

MIB = 1 << 20
PATIENCE = 60  # seconds until the kernel is done with removed subvolumes


def make_disk(place: Path) -> None:
    image = place.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(200 * MIB)
    place.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop,commit=1", str(image), str(place)], check=True)


def number(path: Path) -> int:
    with btrfs_subvolumes.opened(str(path)) as fd:
        return btrfs.number(fd)


def groups(disk: Path) -> list[int]:
    words = ["btrfs", "qgroup", "show", "--raw", str(disk)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0][2:]) for line in lines if line.startswith("0/")]


def too_much(path: Path) -> str:
    """Write more than there may be; give the error."""
    try:
        with path.open("wb") as file:
            file.write(os.urandom(12 * MIB))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or ""
    return "written"


def work(disk: Path) -> dict[str, object]:
    """Make layers, one with a limit and one with a subvolume in it, change one, remove all."""
    found: dict[str, object] = {"kernel": os.uname().release}
    config = Config.load(graphroot=disk / "graph", runroot=disk / "run", driver="btrfs")
    with Store.open(config.replace(options=("btrfs.size=8M",))) as store:
        base = store.layers.create(diff=io.BytesIO(packed(file=b"1")), writable=False)
        inner = Path(store.driver.path(base.id)) / "inner"
        btrfs_subvolumes.create(str(inner))
        (inner / "file").write_text("2")
        top = store.layers.create(base)
        path = Path(store.driver.path(top.id))
        found["files"] = sorted(str(name.relative_to(path)) for name in path.rglob("*"))
        with btrfs_subvolumes.opened(str(disk)) as fd:
            btrfs.wait_for_counts(fd)
        found["error"] = too_much(path / "big")
        (path / "big").unlink(missing_ok=True)
        before = number(path)
        top.apply(io.BytesIO(packed(more=b"3")))
        found["changed"] = (number(path) != before, sorted(os.listdir(path)))
        gone = {number(path), number(path / "inner"), number(inner.parent), number(inner)}
        found["counted"] = gone <= set(groups(disk))
        top.delete()
        base.delete()
        notes = disk / "graph/btrfs/quotas"
        found["noted"] = len(os.listdir(notes)) >= len(gone)
        end = time.monotonic() + PATIENCE
        with btrfs_subvolumes.opened(str(disk)) as fd:
            while any(btrfs.is_known(fd, number) for number in gone) and time.monotonic() < end:
                os.sync()
                time.sleep(0.5)
        found["left by the kernel"] = gone <= set(groups(disk))
        while os.listdir(notes) and time.monotonic() < end:
            os.sync()  # the group can be removed when it counts nothing any more
            store.driver.sweep()
        found["left"] = (os.listdir(notes), sorted(gone & set(groups(disk))), list(store.driver.ids()))
    return found


def main() -> None:
    disk = Path("/run/disk")
    make_disk(disk)
    (Path(sys.argv[1]) / "result.json").write_text(json.dumps(work(disk)))


if __name__ == "__main__":
    main()
