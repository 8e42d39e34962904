"""What is done with limits on overlay layers in the guest (test_quotas.py), and written down there in `result.json`."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from layerhold import StorageError, Store
from layerhold.config import Config
from layerhold.drivers.survey import survey
from layerhold.linux import project_quota
from tests.stores import packed

MIB = 1 << 20
DISK = Path("/run/disks")


def make_disk(kind: str, name: str, *options: str) -> Path:
    place = DISK / name
    place.mkdir(parents=True)
    image = place.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    words = {"xfs": ["mkfs.xfs", "-q"], "ext4": ["mkfs.ext4", "-q", "-O", "quota,project"]}[kind]
    subprocess.run([*words, str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", ",".join(("loop", *options)), str(image), str(place)], check=True)
    return place


class Place:
    """A store on a disk; its layers as other programs than ours see them."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.home = disk / "graph/overlay"

    def store(self, *options: str) -> Store:
        config = Config.load(graphroot=self.disk / "graph", runroot=self.disk / "run", driver="overlay")
        return Store.open(config.replace(options=options))

    def go(self, program: str, *words: str) -> str:
        """Run Go's program; give the first line of its answer, or its error."""
        where = ["-g", f"{self.disk}/graph", "-R", f"{self.disk}/run", "-s", "overlay"]
        done = subprocess.run([program, *where, *words], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.partition("\n")[0]
        return [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("time=")][-1]

    def number(self, id: str) -> int:
        """The project of a layer, counted from the number before the first that Go's program gives."""
        return project(self.home / id) - (10000 + self.home.stat().st_ino * 10000 % (2**32 - 1 - 10000))

    def limit(self, id: str) -> int:
        """How many MiB there can be in a layer, as the file system says; 0 is as many as it has."""
        size = os.statvfs(self.home / id)
        whole = os.statvfs(self.disk)
        return 0 if size.f_blocks == whole.f_blocks else size.f_blocks * size.f_frsize // MIB

    def left_over(self) -> list[str]:
        return sorted(os.listdir(self.home / "tempdirs"))


def project(path: Path) -> int:
    done = subprocess.run(["lsattr", "-pd", str(path)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def fill(folder: Path) -> str:
    """Write 30 MiB in a hundred files, or as much as there may be; give the error, if there is one."""
    found = "written"
    for name, size in (("full", 30 * MIB // 100), ("rest", 4096)):
        try:
            for number in range(100):
                (folder / f"{name}-{number}").write_bytes(bytes(size))
        except OSError as error:
            found = errno.errorcode[error.errno or 0]
    return found


def soon_written(path: Path) -> bool:
    """Write a file where another one was removed: xfs gives back what that had in the background."""
    for _ in range(100):
        try:
            path.write_text("2")
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def refusal(store: Store, **options: str) -> str:
    before = sorted(store.driver.ids())
    try:
        store.containers.create(storage_options=options)
    except (StorageError, OSError) as error:
        assert sorted(store.driver.ids()) == before
        return str(error)
    return "made"


def without_quotas(kind: str) -> dict[str, object]:
    place = Place(make_disk(kind, f"{kind}-without"))
    found: dict[str, object] = {"survey": offered(place.disk)}
    try:
        place.store("overlay.size=8M")
    except StorageError as error:
        found["driver option"] = str(error)
    found["nothing made"] = not place.home.exists()
    with place.store() as store:
        found["container option"] = refusal(store, size="8M")
        found["project"] = project(place.home / store.layers.create().id)
    return found


def offered(disk: Path) -> bool:
    return next(answer.quota for answer in survey(str(disk / "graph")) if answer.driver == "overlay")


def alone(disk: Path) -> dict[str, object]:
    """Layers with limits are made, filled, mounted when they are full, changed and removed."""
    place = Place(disk)
    found: dict[str, object] = {"survey": offered(disk)}
    with place.store("overlay.size=8M") as store:
        base = store.layers.create(diff=io.BytesIO(packed(file=b"1")), writable=False)
        top = store.layers.create(base)
        other = store.layers.create(base)
        found["numbers"] = [project(place.home / base.id), place.number(top.id), place.number(other.id)]
        found["limits"] = [place.limit(id) for id in (base.id, top.id, other.id)]
        with top.mount() as folder:
            found["full"] = fill(folder)
        with top.mount() as folder:
            (folder / "full-0").unlink()
            found["written when full"] = soon_written(folder / "more")
            fill(folder)
        found["limit after a mount"] = place.limit(top.id)
        for name in ("full-1", "full-2"):
            (place.home / top.id / "diff" / name).unlink(missing_ok=True)
        top.apply(io.BytesIO(packed(applied=b"3")))
        found["changed"] = [place.number(top.id), place.limit(top.id), (place.home / top.id / "diff/applied").exists()]
        try:
            other.apply(io.BytesIO(packed(big=os.urandom(9 * MIB))))
        except OSError as error:
            found["too much"] = [errno.errorcode[error.errno or 0], os.listdir(place.home / other.id / "diff")]
        top.delete()
        first = project(place.home / other.id) - place.number(other.id)
        device = project_quota.Device(str(place.home), str(place.home / "backingFsBlockDev"))
        found["still limited"] = [number for number in range(1, 10) if device.quota(first + number).size]
        found["node"] = (place.home / "backingFsBlockDev").is_block_device()
        found["gone"] = [(place.home / top.id).exists(), place.left_over()]
    with place.store() as store:
        again = store.layers.create(base.id)
        found["limit of who comes next"] = [place.number(again.id), place.limit(again.id)]
        box = store.containers.create(storage_options={"inodes": "20", "SIZE": "9M"})
        found["container"] = [place.number(box.layer.id), place.limit(box.layer.id)]
        for _ in range(2):
            with box.layer.mount() as folder:
                found["files"] = [fill(folder), len(os.listdir(folder)) <= 20]
                os.unlink(folder / "full-0")
        box.delete()
        found["refusals"] = [
            refusal(store, **{key: value})
            for key, value in (("size", "x"), ("inodes", "-1"), ("colour", "red"), ("size", "1k"), ("inodes", "2"))
        ]
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: store.layers.create(base.id).id, range(8)))
        numbers = [place.number(id) for id in made]
        found["at once"] = [len(set(numbers)), min(numbers) > place.number(again.id), place.left_over()]
    return found


def with_go(kind: str, disk: Path, programs: dict[str, str]) -> dict[str, object]:
    """Layers with limits of one program, used by the other."""
    place = Place(disk)
    found: dict[str, object] = {}
    options = ("--storage-opt", "overlay.size=8M")
    for version, program in programs.items():
        if kind == "ext4":
            refused = place.go(program, *options, "layers")
            with place.store("overlay.size=9M") as store:
                ours = store.layers.create()
            found[version] = [refused, fill(Path(place.go(program, "mount", ours.id)))]
            continue
        with place.store("overlay.size=9M") as store:
            ours = store.layers.create()
            theirs = store.layers[place.go(program, *options, "create-layer")]
            next_one = store.layers.create()
            numbers = [place.number(layer.id) for layer in (ours, theirs, next_one)]
            there = Path(place.go(program, "mount", ours.id))
            full = fill(there)
            without = unlimited_by_go(place, program, options)
            kept = full_with_go(place, program, ours.id)
            with theirs.mount() as folder:
                full_too = fill(folder)
            with theirs.mount() as folder:
                (folder / "full-0").unlink()
            limits = [place.limit(layer.id) for layer in (ours, theirs)]
            theirs.delete()
            place.go(program, "unmount", ours.id)
            place.go(program, "delete-layer", next_one.id)
            left = [(place.home / layer.id).exists() for layer in (ours, theirs, next_one)]
            steps = [numbers[1] - numbers[0], numbers[2] - numbers[1]]
            found[version] = [steps, [full, full_too], limits, left]
            found[f"{version} alone"] = [kept, without]
    return found


def full_with_go(place: Place, program: str, id: str) -> list[str]:
    """Unmount a full layer, and mount it once more; say what comes of it."""
    unmounted, there = place.go(program, "unmount", id), place.go(program, "mount", id)
    if not there.startswith("/"):
        return [end(unmounted), end(there)]
    try:
        (Path(there) / "full-0").unlink()
    except OSError as error:
        written = errno.errorcode[error.errno or 0]
    else:
        written = "written"
    subprocess.run(["umount", there], check=True)
    return [end(unmounted), written]


def end(text: str) -> str:
    """Give what an error of Go's program says in the end."""
    return text.partition(" while ")[0].rpartition(": ")[2].rpartition(" mountpoint ")[2]


def unlimited_by_go(place: Place, program: str, options: tuple[str, ...]) -> int:
    """Make a layer without a limit, whose number had one before; give the limit."""
    before = place.go(program, *options, "create-layer")
    place.go(program, "delete-layer", before)
    after = place.go(program, "create-layer")
    limit = place.limit(after)
    place.go(program, "delete-layer", after)
    return limit


def in_a_project(disk: Path) -> dict[str, object]:
    """The home has a number of its own, which it passes on."""
    place = Place(disk)
    (place.home / "tempdirs").mkdir(parents=True)
    for path in (place.home, place.home / "tempdirs"):
        subprocess.run(["chattr", "-p", "777", "+P", str(path)], check=True)
    with place.store("overlay.size=8M") as store:
        base = store.layers.create(diff=io.BytesIO(packed(file=b"1")), writable=False)
        top = store.layers.create(base)
        numbers = [project(path) for path in (place.home, place.home / base.id, place.home / top.id)]
        top.delete()
        base.delete()
        return {"numbers": numbers, "left": list(store.driver.ids())}


def main() -> None:
    folder, *programs = sys.argv[1:]
    found: dict[str, object] = {"kernel": os.uname().release}
    for kind in ("xfs", "ext4"):
        disk = make_disk(kind, kind, "prjquota")
        for name in ("alone", "go", "project"):
            (disk / name).mkdir()
        of_kind: dict[str, object] = {"without": without_quotas(kind), "alone": alone(disk / "alone")}
        if programs:
            of_kind["go"] = with_go(kind, disk / "go", dict(zip(programs[::2], programs[1::2], strict=True)))
            of_kind["project"] = in_a_project(disk / "project")
        found[kind] = of_kind
    (Path(folder) / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
