"""Stores on btrfs, ours and Go's: limits, removed layers, and what is different on purpose (docs/compatibility.md)."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerhold
from layerhold.drivers import btrfs_subvolumes
from layerhold.errors import StorageError
from layerhold.linux import btrfs as calls
from layerhold.testing import trees
from tests import disks, programs, stores
from tests.compat.test_commands import tar
from tests.compat.test_podman import NAME, build_image
from tests.inputs import Input
from tests.stores import Place

pytestmark = [pytest.mark.compat, pytest.mark.root]

MIB = 1 << 20
IMAGE, LAYER, OTHER, BOX = "a" * 64, "1" * 64, "2" * 64, "b" * 64
VERSIONS = programs.STORAGE_VERSIONS
WITH_SIZE = ("1.64",)  # the option `btrfs.size`; older ones have `size` of a container alone
CONTENT = tar(("etc", None, 0o755), ("etc/motd", b"hello\n", 0o644))
NO_ROOT = "--uidmap 5:1000:5 --gidmap 5:1000:5"
MAPS = "--uidmap 0:100000:65536 --gidmap 0:200000:65536"


@pytest.fixture
def disk(programs: object) -> Iterator[Path]:
    with disks.disk("btrfs") as place:
        yield place


def place_on(disk: Path, *options: str, name: str = "store") -> Place:
    return Place(disk / name, "btrfs", options)


def opened(place: Place) -> layerhold.Store:
    config = layerhold.Config.load(graphroot=place.root, runroot=place.run, driver="btrfs")
    return layerhold.Store.open(config.replace(options=place.options))


def subvolume(place: Place, id: str) -> Path:
    return place.root / "btrfs/subvolumes" / id


def limit(place: Place, id: str) -> str:
    """The limit that the file system has for a layer, in bytes or "none"."""
    with btrfs_subvolumes.opened(str(subvolume(place, id))) as fd:
        number = calls.number(fd)
    return groups(place.folder)[number]


def write_through(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())


def groups(disk: Path) -> dict[int, str]:
    """The quota groups of a file system: the number of each subvolume, and its limit."""
    words = ["btrfs", "qgroup", "show", "--raw", "-r", str(disk)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return {int(row[0][2:]): row[3] for row in (line.split() for line in lines) if row[0].startswith("0/")}


# -- limits


@pytest.mark.parametrize("version", WITH_SIZE)
def test_limits_of_go_are_ours(disk: Path, version: str) -> None:
    place = place_on(disk, "btrfs.min_space=4M", "btrfs.size=8M")
    place.go("create-layer", "-i", LAYER, version=version)
    place.go("create-layer", "--readonly", "-i", OTHER, version=version)
    quota = place.root / "btrfs/quotas" / LAYER
    with opened(place) as store:
        assert quota.read_text() == limit(place, LAYER) == str(8 * MIB)
        assert limit(place, OTHER) == "none"
        store.layers[LAYER].apply(io.BytesIO(CONTENT))
        assert quota.read_text() == limit(place, LAYER) == str(8 * MIB)
        store.layers[LAYER].delete()
    assert not quota.exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_our_limits_are_gos(disk: Path, version: str) -> None:
    place = place_on(disk, "btrfs.min_space=4M", "btrfs.size=8M")
    ours_alone = Place(place.folder, "btrfs", ["btrfs.min_space=4M"])
    with opened(place) as store:
        base = store.layers.create(id=OTHER, diff=io.BytesIO(CONTENT), writable=False)
        store.layers.create(base, id=LAYER)
        image = store.images.create(layer=base, id=IMAGE)
        store.containers.create(image=image, id=BOX)
    assert limit(place, LAYER) == str(8 * MIB)
    subprocess.run(["btrfs", "quota", "disable", str(disk)], check=True)
    assert ours_alone.go("mount", LAYER, version=version).stdout.strip() == str(subvolume(place, LAYER))
    ours_alone.go("unmount", LAYER, version=version)
    assert limit(place, LAYER) == str(8 * MIB)
    ours_alone.go("delete-layer", LAYER, version=version)
    ours_alone.go("delete-container", BOX, version=version)
    assert list((place.root / "btrfs/quotas").glob("[!.]*")) == []


def test_limits_of_a_file_of_settings(disk: Path) -> None:
    """`size` of the driver's own table goes before the general one."""
    kept = {}
    for name in ("ours", "go"):
        place, settings = place_on(disk, name=name), disk / f"{name}.conf"
        settings.write_text(
            f'[storage]\ndriver = "btrfs"\ngraphroot = "{place.root}"\nrunroot = "{place.run}"\n'
            '[storage.options]\nsize = "10M"\n[storage.options.btrfs]\nmin_space = "1M"\nsize = "20M"\n'
        )
        env = os.environ | {"CONTAINERS_STORAGE_CONF": str(settings)}
        words = stores.ours() if name == "ours" else [programs.storage()]
        subprocess.run([*words, "create-layer", "-i", LAYER], check=True, capture_output=True, env=env)
        kept[name] = (place.root / "btrfs/quotas" / LAYER).read_text()
    assert kept == {"ours": str(20 * MIB), "go": str(20 * MIB)}


@pytest.mark.parametrize(
    "options",
    [
        ["btrfs.size=abc"],
        ["btrfs.min_space=1x"],
        ["btrfs.mountopt=nodev"],
        ["btrfs.nonsense=1"],
        ["btrfs.imagestore=/nowhere"],
        ["nonsense"],
    ],
    ids=str,
)
def test_options_that_both_refuse(disk: Path, options: list[str]) -> None:
    mine, theirs = (
        getattr(place_on(disk, *options, name=name), name)("status", check=False) for name in ("ours", "go")
    )
    said = [line for line in theirs.stderr.splitlines() if not line.startswith("time=")]
    if "imagestore" in options[0]:  # ours looks first whether there is such a store
        assert mine.returncode == theirs.returncode == 1
    else:
        assert (mine.returncode, mine.stderr.splitlines()) == (theirs.returncode, said)


def test_a_limit_that_is_too_small(disk: Path) -> None:
    place = place_on(disk, "btrfs.min_space=10M", "btrfs.size=5M")
    answers = [run("create-layer", "-i", LAYER, check=False) for run in (place.ours, place.go)]
    for answer in answers:
        assert answer.returncode == 1
        assert answer.stderr.endswith("btrfs: storage size cannot be less than 10.49MB\n")


def test_where_there_is_no_btrfs(store_dir: Path) -> None:
    place = Place(store_dir / "store", "btrfs")
    words = f'"{place.root}/btrfs" is not on a btrfs filesystem: prerequisites for driver not satisfied'
    for run in (place.ours, place.go):
        answer = run("status", check=False)
        assert answer.returncode == 1
        assert words in answer.stdout + answer.stderr


@pytest.fixture
def with_image(disk: Path, rootfs: Input) -> Iterator[tuple[Place, layerhold.Store]]:
    """A store with an image of ours that runs."""
    place = Place(disk, "btrfs")  # the older Podman wants a short path
    with opened(place) as store, Path(rootfs.gz).open("rb") as content:
        build_image(store, store.layers.create(diff=content, writable=False))
        yield place, store


@pytest.mark.parametrize("version", ["4.3", "5.8"])
def test_podman_runs_it(with_image: tuple[Place, layerhold.Store], version: str) -> None:
    place, store = with_image
    podman = place.podman43 if version == "4.3" else place.podman58
    ran = podman("run", *programs.RUN_FLAGS, NAME, "sh", "-c", "echo written > /new; cat /new")
    assert (ran.returncode, ran.stdout) == (0, "written\n"), ran.stderr
    assert len(store.containers) == 0


def test_limits_of_podmans_containers_and_of_ours(with_image: tuple[Place, layerhold.Store]) -> None:
    """(The older Podman offers them, and then says that it does not know the option.)"""
    place, store = with_image
    ours = store.containers.create(image=NAME, storage_options={"size": "400M"})
    made = place.podman58("create", "--storage-opt", "size=500M", NAME, "true")
    assert made.returncode == 0, made.stderr
    theirs = store.containers[made.stdout.strip()]
    for box, size in ((ours, 400), (theirs, 500)):
        assert limit(place, box.layer.id) == str(size * MIB)
        assert (place.root / "btrfs/quotas" / box.layer.id).read_text() == str(size * MIB)
    assert place.podman58("rm", theirs.id).returncode == 0
    assert [box.id for box in store.containers] == [ours.id]
    ours.delete()
    assert list((place.root / "btrfs/quotas").glob("[!.]*")) == []


# -- different on purpose


def test_status_names_the_kernel(disk: Path) -> None:
    place = place_on(disk)
    mine, theirs = dict(place.ours_json("status")), dict(place.go_json("status"))
    assert mine.keys() == theirs.keys()
    assert (mine.pop("Build Version"), mine.pop("Library Version")) == (f"Linux {os.uname().release}", "none")
    assert re.fullmatch(r"Btrfs v\d+\.\d+\S*", theirs.pop("Build Version"))
    assert re.fullmatch(r"\d+", theirs.pop("Library Version"))
    assert mine == theirs


def test_only_ours_shares_blocks(disk: Path) -> None:
    content = tar(("one", bytes(range(256)) * 1000, 0o644), ("two", bytes(range(256)) * 1000, 0o644))
    shared = {}
    for name in ("ours", "go"):
        place = place_on(disk, name=name)
        place.go("import-layer", "-i", LAYER, stdin=content)
        place.go("create-image", LAYER)
        shared[name] = getattr(place, name)("dedup").stdout
    assert shared == {"ours": "Deduplicated 256000 bytes\n", "go": "Deduplicated 0 bytes\n"}


def test_only_ours_refuses_maps_without_root(disk: Path) -> None:
    place = place_on(disk)
    assert place.go("create-layer", *NO_ROOT.split(), check=False).returncode == 0
    assert place.ours("create-layer", *NO_ROOT.split(), check=False).returncode == 1


def test_only_ours_gives_the_top_of_a_copy_to_its_container(disk: Path) -> None:
    owners = {}
    for name in ("ours", "go"):
        place = place_on(disk, name=name)
        run = getattr(place, name)
        run("import-layer", "-i", LAYER, stdin=CONTENT)
        run("create-layer", "-i", OTHER, *MAPS.split(), LAYER)
        top = subvolume(place, OTHER)
        owners[name] = (top.stat().st_uid, (top / "etc").stat().st_uid)
    assert owners == {"ours": (100000, 100000), "go": (0, 100000)}


def test_only_ours_has_subvolumes_of_the_parent(disk: Path) -> None:
    place = place_on(disk)
    place.go("create-layer", "-i", LAYER)
    inner = subvolume(place, LAYER) / "inner"
    btrfs_subvolumes.create(str(inner))
    (inner / "file").write_text("1")
    place.go("create-layer", "-i", OTHER, LAYER)
    assert os.listdir(subvolume(place, OTHER) / "inner") == []
    with opened(place) as store:
        assert os.listdir(store.layers.create(LAYER).mount().path / "inner") == ["file"]
    place.go("delete-layer", OTHER)


def test_only_go_says_that_it_cannot_remove_quota_groups(disk: Path) -> None:
    place = place_on(disk, "btrfs.size=8M")
    for run, said in ((place.go, "Failed to delete btrfs qgroup"), (place.ours, "")):
        place.ours("create-layer", "-i", LAYER)
        answer = run("delete-layer", LAYER)
        assert said in answer.stderr
        assert bool(said) == bool(answer.stderr)


def test_only_ours_works_on_copies_without_subvolumes(disk: Path) -> None:
    place = place_on(disk)
    place.go("import-layer", "-i", LAYER, stdin=CONTENT)
    top = subvolume(place, LAYER)
    subprocess.run(["cp", "-a", str(top), str(top.with_name("copy"))], check=True)
    place.go("delete-layer", LAYER)
    place.ours("import-layer", "-i", LAYER, stdin=CONTENT)
    subprocess.run(["btrfs", "subvolume", "delete", str(top)], check=True, capture_output=True)
    top.with_name("copy").rename(top)
    assert place.go("create-layer", LAYER, check=False).returncode == 1
    assert place.ours("create-layer", "-i", OTHER, LAYER).returncode == 0
    assert (subvolume(place, OTHER) / "etc/motd").read_text() == "hello\n"


# -- real layers


@pytest.mark.rootfs
def test_a_real_layer_comes_and_goes(disk: Path, small: Input) -> None:
    ours, go = place_on(disk, name="ours"), place_on(disk, name="go")
    ours.ours("import-layer", "-i", LAYER, "-f", str(small.gz))
    go.go("import-layer", "-i", LAYER, "-f", str(small.gz))
    mine, theirs = trees.rows(subvolume(ours, LAYER)), trees.rows(subvolume(go, LAYER))
    roots = [rows.pop(b"") for rows in (mine, theirs)]
    assert not trees.differences(mine, theirs)
    assert {row.kind for row in roots} == {"dir"}
    out = disk / "out.tar"
    for place in (ours, go):
        for run in (place.ours, place.go):
            run("diff", "-u", "-f", str(out), LAYER)
            assert out.read_bytes() == Path(small.tar).read_bytes()
        assert (place.ours("check").stdout, place.go("check").stdout) == ("", "")


def test_what_a_container_with_a_limit_writes_beyond_it_is_refused(disk: Path) -> None:
    with opened(place_on(disk, "btrfs.size=8M")) as store:
        store.images.create(layer=store.layers.create(diff=io.BytesIO(CONTENT), writable=False), id=IMAGE)
        box = store.containers.create(image=IMAGE)
        with btrfs_subvolumes.opened(str(disk)) as fd:
            calls.wait_for_counts(fd)
        with box.layer.mount() as top, pytest.raises(OSError, match="quota"):
            write_through(top / "big", 12 * MIB)
        with pytest.raises((OSError, StorageError), match="quota"):
            store.layers.create(diff=io.BytesIO(tar(("big", os.urandom(12 * MIB), 0o644))))
        assert len(store.layers) == 2
