"""A store made anew for another driver: all of it comes along, the old one is as it was, no half of one ever stays."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from layerhold import progress
from layerhold.config import Config
from layerhold.convert import Conversion, convert
from layerhold.errors import (
    Cancelled,
    DamagedLayer,
    DigestMismatch,
    DriverError,
    DriverNotSupported,
    StorageError,
    StoreUnknown,
)
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.progress import Progress
from layerhold.store import Store
from layerhold.testing import everything, trees
from tests import aufs_store, disks, stores
from tests.aufs_store import BASE, DIFFS, IMAGE, MIDDLE, NAME, TOP
from tests.users import OrdinaryUser

ROOT = pytest.mark.root
RANGE = IdRange(container=0, host=100000, size=65536)
MAPPED = IdMappings(uids=(RANGE,), gids=(RANGE,))


@pytest.fixture
def folder() -> Iterator[Path]:
    with stores.scratch("convert") as folder:
        yield folder


def opened(folder: Path, driver: str, name: str = "root") -> Store:
    return Store.open(graphroot=folder / name, runroot=folder / "run", driver=driver)


def fill(folder: Path, driver: str) -> Path:
    """Make a store with layers that came in, an image, and a container that was written to."""
    root = folder / "root"
    if driver == "aufs":
        aufs_store.make(root, folder / "run")
        return root
    store = opened(folder, driver)
    base = store.layers.create(id=BASE, names=["base"], diff=io.BytesIO(DIFFS[BASE]), writable=False)
    middle = store.layers.create(base, id=MIDDLE, diff=io.BytesIO(DIFFS[MIDDLE]), metadata="text")
    middle.data.set("key", b"big data of a layer")
    image = store.images.create(layer=middle, id=IMAGE, names=[NAME], data={"manifest": b"{}", "Odd key": b"odd"})
    image.add_names(["localhost/more:1"])
    image.remove_names(["localhost/more:1"])
    box = store.containers.create(image=image, names=["box"], metadata="about it", data={"key": b"value"})
    (box.directory / "state").write_bytes(b"of whoever runs it")
    with box.layer.mount() as top:
        work(top)
    store.shutdown()
    return root


def work(top: Path) -> None:
    """What a container may do to its files."""
    (top / "etc/conf").write_bytes(b"third")
    (top / "etc/kept").unlink()
    shutil.rmtree(top / "tmp")
    shutil.rmtree(top / "opt")
    (top / "opt").mkdir()
    (top / "opt/newer").write_bytes(b"newer")
    (top / "usr/bin/three").write_bytes(b"#!three")
    os.link(top / "usr/bin/three", top / "usr/bin/four")
    (top / "usr/bin").chmod(0o711)
    (top / "run").mkdir()
    os.mkfifo(top / "run/fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{(fd := os.open(top / 'run', os.O_PATH))}/socket")
        os.close(fd)
    (top / "link").symlink_to("nowhere")
    (top / "no-entry/deep").mkdir(parents=True, mode=0o700)
    (top / "no-entry/deep/file").write_bytes(b"")
    os.utime(top / "no-entry", (1_000_000_000, 1_000_000_000))


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """All of a store, so that no change is missed."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            content = Path(path).read_bytes() if name in files and os.path.isfile(path) else b""
            found[path] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_ino, hash(content))
    return found


def records(root: Path, driver: str) -> dict[str, bytes]:
    """The files beside the driver's home: records, tar-split files and big data, but for locks."""
    found = {}
    for kind in ("layers", "images", "containers"):
        top = root / f"{driver}-{kind}"
        for path in top.rglob("*"):
            if path.is_file() and path.suffix != ".lock":
                found[f"{kind}/{path.relative_to(top)}"] = path.read_bytes()
    return found


def tars(store: Store) -> dict[str, str]:
    """The digests of the layers' tars that came in."""
    found = {}
    for layer in store.layers:
        if layer.record.diff_digest:
            with layer.diff(compression=0) as tar:
                found[layer.id] = "sha256:" + hashlib.file_digest(tar, "sha256").hexdigest()  # type: ignore[arg-type]
    return found


PAIRS = [
    ("aufs", "vfs"),
    ("vfs", "vfs"),
    pytest.param("aufs", "overlay", marks=ROOT),
    pytest.param("vfs", "overlay", marks=ROOT),
    pytest.param("overlay", "vfs", marks=ROOT),
    pytest.param("overlay", "overlay", marks=ROOT),
]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_all_comes_along_and_the_old_store_is_as_it_was(folder: Path, old: str, new: str) -> None:
    root = fill(folder, old)
    before = state(root)
    done = convert(root, new)
    into = folder / f"root-{new}"
    assert done == Conversion(
        old_driver=old, new_driver=new, graphroot=str(into), layers=3, images=1, containers=1,
        bytes=sum(map(len, DIFFS.values())),
    )  # fmt: skip
    assert state(root) == before
    assert sorted(os.listdir(folder)) == ["root", into.name, "run"]
    assert records(into, new) == records(root, old)
    assert stores.mounts_below(folder) == []
    same(opened(folder, old), opened(folder, new, into.name))


def same(old: Store, new: Store) -> None:
    """The new store has what the old one has, to its programs."""
    assert tars(new) == {BASE: new.layers[BASE].record.diff_digest, MIDDLE: new.layers[MIDDLE].record.diff_digest}
    assert tars(new) == tars(old)
    report = new.check()
    assert report.ok, vars(report)
    box = new.containers["box"]
    assert (box.directory / "state").read_bytes() == b"of whoever runs it"
    assert box.data["key"] == b"value"
    with box.layer.mount() as top:
        assert (top / "etc/conf").read_bytes() == b"third"
        assert (top / "usr/bin/three").stat().st_nlink == 2
        assert sorted(os.listdir(top / "opt")) == ["newer"]
        assert not (top / "tmp").exists()
        assert not (top / "etc/kept").exists()
        (top / "etc/more").write_bytes(b"1")
    assert "/etc/more" in {os.fsdecode(change.path) for change in box.layer.changes()}
    new.containers.create(image=IMAGE)
    new.shutdown()


@ROOT
@pytest.mark.parametrize(("old", "new"), [("vfs", "overlay"), ("overlay", "vfs")])
def test_every_kind_of_file_and_of_change(folder: Path, old: str, new: str) -> None:
    can = everything.Can.here()
    below, above = everything.base(can), everything.top(can)
    store = opened(folder, old)
    base = store.layers.create(id=BASE, diff=io.BytesIO(everything.as_tar(below)))
    store.layers.create(base, id=MIDDLE, diff=io.BytesIO(everything.as_tar(above)))
    with store.layers.create(MIDDLE, id=TOP).mount() as top:
        for name in (b"a/file", b"deep/deep/file"):
            os.truncate(os.path.join(os.fsencode(top), name), 2)
        os.setxattr(top / "a/setuid", "user.more", b"1")
    with store.layers[TOP].mount() as top:
        written = trees.rows(top)
    store.shutdown()
    convert(folder / "root", new)
    made = opened(folder, new, f"root-{new}")
    for id, tree in ((BASE, everything.expected(below)), (MIDDLE, everything.expected(below, above))):
        with made.layers[id].mount(read_only=True) as top:
            assert trees.differences(tree, {path: row for path, row in trees.rows(top).items() if path}) == []
    with made.layers[TOP].mount(read_only=True) as top:
        assert trees.differences(written, trees.rows(top), ignore=["mtime_ns"]) == []
    assert made.check().ok
    made.shutdown()


@ROOT
@pytest.mark.parametrize(("old", "new"), [("btrfs", "overlay"), ("vfs", "btrfs"), ("aufs", "btrfs")])
def test_btrfs(old: str, new: str) -> None:
    with disks.disk("btrfs") as disk:
        root = fill(disk, old)
        convert(root, new)
        assert records(disk / f"root-{new}", new) == records(root, old)
        same(opened(disk, old), opened(disk, new, f"root-{new}"))
        opened(disk, old).shutdown()


@ROOT
@pytest.mark.parametrize(("old", "new"), [("overlay", "vfs"), ("vfs", "overlay"), ("overlay", "overlay")])
@pytest.mark.parametrize("at_mount", [True, False])
def test_layers_with_maps_keep_their_owners(folder: Path, old: str, new: str, at_mount: bool) -> None:
    config = Config.load(graphroot=folder / "root", runroot=folder / "run", driver=old)
    store = Store.open(config.replace(idmapped_mounts=at_mount))
    base = store.layers.create(id=BASE, diff=io.BytesIO(DIFFS[BASE]), writable=False)
    store.images.create(layer=base, id=IMAGE, data={"manifest": b"{}"})
    store.layers.create(BASE, id=MIDDLE, diff=io.BytesIO(DIFFS[MIDDLE]), mappings=MAPPED)
    box = store.containers.create(image=IMAGE, names=["box"], mappings=MAPPED)
    with store.layers[box.layer_id].mount(mappings=MAPPED) as top:
        (top / "etc/mine").write_bytes(b"1")
        os.chown(top / "etc/mine", 100005, 100006)
    owners = {}
    for layer in (MIDDLE, box.layer_id) if store.layers[MIDDLE].record.mappings else (box.layer_id,):
        with store.layers[layer].mount(read_only=True, mappings=MAPPED) as top:
            owners[layer] = trees.rows(top, content=False)
    store.shutdown()
    convert(folder / "root", new, into=folder / "new")
    made = opened(folder, new, "new")
    for layer, expected in owners.items():
        with made.layers[layer].mount(read_only=True, mappings=MAPPED) as top:
            found = trees.rows(top, content=False)
        assert trees.differences(expected, found, ignore=["mtime_ns"]) == []
        assert found[b"etc/owned"].uid == 101234
    made.shutdown()


def test_layers_without_a_tar_split_file_and_volatile_ones(folder: Path) -> None:
    store = opened(folder, "vfs")
    store.layers.create(id=BASE, diff=io.BytesIO(DIFFS[BASE]))
    store.containers.create(names=["brief"], volatile=True)
    (folder / "root/vfs-layers" / f"{BASE}.tar-split.gz").unlink()
    convert(folder / "root", "vfs", into=folder / "new")
    made = opened(folder, "vfs", "new")
    assert (folder / "new/vfs-containers/volatile-containers.json").exists()
    assert (folder / "new/vfs-layers/volatile-layers.json").exists()
    assert made.layers[BASE].record == store.layers[BASE].record
    assert made.containers["brief"].layer_id == store.containers["brief"].layer_id
    assert not (folder / "new/vfs-layers" / f"{BASE}.tar-split.gz").exists()


@pytest.mark.parametrize("new", ["vfs", pytest.param("overlay", marks=ROOT)])
def test_a_layer_that_was_written_to_after_it_came_in_keeps_what_was_written(folder: Path, new: str) -> None:
    store = opened(folder, "vfs")
    layer = store.layers.create(id=BASE, diff=io.BytesIO(DIFFS[BASE]))
    with layer.mount() as top:
        (top / "etc/later").write_bytes(b"later")
        (top / "opt/deep").chmod(0o700)
    convert(folder / "root", new, into=folder / "new")
    made = opened(folder, new, "new")
    with made.layers[BASE].mount() as top:
        assert (top / "etc/later").read_bytes() == b"later"
        assert (top / "opt/deep").stat().st_mode & 0o777 == 0o700
    with made.layers[BASE].diff() as tar:
        assert tar.read() == DIFFS[BASE]
    made.shutdown()


def test_keys_that_are_not_known_come_along(folder: Path) -> None:
    fill(folder, "vfs")
    path = folder / "root/vfs-images/images.json"
    path.write_text(path.read_text().replace('"id":', '"new-key":{"a":[1]},"id":', 1))
    convert(folder / "root", "vfs", into=folder / "new")
    assert '"new-key":{"a":[1]}' in (folder / "new/vfs-images/images.json").read_text()


def test_parents_come_first_whatever_their_order(folder: Path) -> None:
    fill(folder, "vfs")
    path = folder / "root/vfs-layers/layers.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    assert convert(folder / "root", "vfs", into=folder / "new").layers == 3
    assert opened(folder, "vfs", "new").check().ok


def test_dry_run_says_what_there_is_and_makes_nothing(folder: Path) -> None:
    root = fill(folder, "aufs")
    before = state(folder)
    assert convert(root, "overlay", dry_run=True).containers == 1
    assert state(folder) == before


# -- what cannot be done


def refused(root: Path, error: type[StorageError], words: str, to: str = "vfs", into: Path | None = None) -> None:
    before = state(root.parent)
    with pytest.raises(error, match=words):
        convert(root, to, into=into)
    assert state(root.parent) == before


def test_there_is_no_store(folder: Path) -> None:
    (folder / "empty").mkdir()
    refused(folder / "empty", StoreUnknown, "empty: no store there")
    refused(folder / "missing", StoreUnknown, "missing: no store there")


def test_there_is_no_such_driver(folder: Path) -> None:
    root = fill(folder, "vfs")
    refused(root, DriverNotSupported, "to convert to aufs: driver not supported", to="aufs")
    refused(root, DriverNotSupported, "to convert to ../x", to="../x")


def test_the_driver_of_the_old_store_is_another(folder: Path) -> None:
    root = fill(folder, "vfs")
    with pytest.raises(StoreUnknown):
        convert(root, "vfs", driver="overlay")
    (root / "aufs/diff/x").mkdir(parents=True)
    refused(root, DriverError, "several valid graphdrivers: vfs, aufs")
    assert convert(root, "vfs", driver="vfs", into=folder / "new").layers == 3


def test_there_is_something_already(folder: Path) -> None:
    root = fill(folder, "vfs")
    (folder / "full").mkdir()
    (folder / "full/file").touch()
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("empty")
    for name in ("full", "full/file", "link"):
        refused(root, DriverError, "is there already", into=folder / name)
    for name in ("root", "root/vfs/new", "."):
        refused(root, DriverError, "one in the other", into=folder / name)
    assert convert(root, "vfs", into=folder / "empty").graphroot == str(folder / "empty")


@ROOT
def test_the_driver_cannot_be_used_there(folder: Path) -> None:
    root = fill(folder, "vfs")
    refused(
        root, DriverError, f"no store of btrfs can be made in {folder}/new: .* not on a btrfs", "btrfs", folder / "new"
    )


@pytest.mark.parametrize("old", ["aufs", "vfs", pytest.param("overlay", marks=ROOT)])
def test_a_damaged_layer_is_named(folder: Path, old: str) -> None:
    root = fill(folder, old)
    inside = {"aufs": f"aufs/diff/{BASE}", "vfs": f"vfs/dir/{BASE}", "overlay": f"overlay/{BASE}/diff"}[old]
    info = os.stat(root / inside / "opt/a")
    (root / inside / "opt/a").write_bytes(b"b")
    os.utime(root / inside / "opt/a", ns=(info.st_atime_ns, info.st_mtime_ns))
    refused(root, DamagedLayer, f"layer {BASE}: .*opt/a")


def test_a_layer_that_is_missing_is_named(folder: Path) -> None:
    root = fill(folder, "aufs")
    shutil.rmtree(root / "aufs/diff" / MIDDLE)
    refused(root, StorageError, MIDDLE)


def test_a_digest_that_is_wrong_is_found(folder: Path) -> None:
    root = fill(folder, "aufs")
    path = root / "aufs-layers/layers.json"
    path.write_text(path.read_text().replace(hashlib.sha256(DIFFS[BASE]).hexdigest(), "0" * 64))
    refused(root, DigestMismatch, f"layer {BASE}: .*digest does not match")


# -- interrupted


def test_progress_is_told_and_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0.0)
    root = fill(folder, "aufs")
    before = state(folder)
    seen: list[Progress] = []
    for steps in range(1, 30, 3):

        def call(now: Progress, steps: int = steps) -> None:
            seen.append(now)
            if len(seen) >= steps:
                raise Cancelled

        seen.clear()
        try:
            convert(root, "vfs", into=folder / "new", progress=call)
        except Cancelled:
            assert state(folder) == before
        else:
            break
    assert {now.phase for now in seen} == {"converting"}
    assert seen[-1].bytes == seen[-1].total_bytes == sum(map(len, DIFFS.values()))


@pytest.mark.parametrize("new", ["vfs", pytest.param("overlay", marks=ROOT)])
def test_killed_at_any_time_it_can_be_begun_again(folder: Path, new: str) -> None:
    root = fill(folder, "aufs")
    before = state(root)
    words = [sys.executable, "-c", f"from layerhold.convert import convert; convert({str(root)!r}, {new!r})"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    began = time.monotonic()
    subprocess.run(words, check=True, env=env)
    whole = time.monotonic() - began
    into = folder / f"root-{new}"
    made = records(into, new)
    shutil.rmtree(into)
    for part in range(1, 9):
        child = subprocess.Popen(words, env=env, start_new_session=True)
        time.sleep(whole * part / 9)
        kill(child)
        assert state(root) == before
        if into.exists():
            assert records(into, new) == made
            shutil.rmtree(into)
    convert(root, new)
    assert records(into, new) == made
    assert sorted(os.listdir(folder)) == ["root", into.name, "run"]
    assert stores.mounts_below(folder) == []


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a process, and wait for those that it made, which hold its locks until they have ended, too."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    with suppress(ProcessLookupError):
        for _ in range(300):
            os.killpg(child.pid, 0)
            time.sleep(0.01)


# -- stores of other kinds


@pytest.mark.parametrize("driver", ["vfs", pytest.param("overlay", marks=ROOT)])
def test_images_that_have_a_root_of_their_own_come_into_the_one_store(folder: Path, driver: str) -> None:
    config = Config.load(graphroot=folder / "root", runroot=folder / "run", driver=driver)
    store = Store.open(config.replace(imagestore=str(folder / "images")))
    base = store.layers.create(id=BASE, diff=io.BytesIO(DIFFS[BASE]), writable=False)
    middle = store.layers.create(base, id=MIDDLE, diff=io.BytesIO(DIFFS[MIDDLE]), writable=False)
    store.images.create(layer=middle, id=IMAGE, names=[NAME], data={"manifest": b"{}"})
    box = store.containers.create(image=IMAGE, names=["box"])
    with box.layer.mount() as top:
        work(top)
    (box.directory / "state").write_bytes(b"of whoever runs it")
    box.data.set("key", b"value")
    store.shutdown()
    with pytest.raises(StorageError, match="is not in the store") as raised:
        convert(folder / "root", driver, into=folder / "new")
    assert "--image-store" in raised.value.hint
    before = state(folder / "root"), state(folder / "images")
    done = convert(folder / "root", driver, imagestore=folder / "images", into=folder / "new")
    assert (done.layers, done.images, done.containers) == (3, 1, 1)
    assert (state(folder / "root"), state(folder / "images")) == before
    same(store, opened(folder, driver, "new"))


def test_an_ordinary_user_converts_his_store(ordinary_user: OrdinaryUser) -> None:
    home = ordinary_user.home
    store = ["-g", f"{home}/root", "-R", f"{home}/run", "-s", "vfs"]
    ordinary_user.layerhold(*store, "import-layer", "-i", BASE, stdin=DIFFS[BASE])
    ordinary_user.layerhold(*store, "import-layer", "-i", MIDDLE, BASE, stdin=DIFFS[MIDDLE])
    said = ordinary_user.layerhold("convert", f"{home}/root", "--to", "overlay").stdout
    assert said == f"2 layers, 0 images, 0 containers converted from vfs to overlay: {home}/root-overlay\n"
    made = ["-g", f"{home}/root-overlay", "-R", f"{home}/run", "-s", "overlay"]
    assert ordinary_user.layerhold(*made, "check", "-m", "1h").stdout == ""
    ordinary_user.layerhold("convert", f"{home}/root-overlay", "--to", "vfs", "--into", f"{home}/back")
    for driver, name in (("overlay", "root-overlay"), ("vfs", "back")):
        assert (home / name / f"{driver}-layers").stat().st_uid == ordinary_user.uid


@ROOT
@pytest.mark.parametrize("driver", ["aufs", "vfs", "overlay"])
def test_a_store_that_nobody_can_write_to_is_converted(folder: Path, driver: str) -> None:
    root = fill(folder, driver)
    for lock in root.rglob("*.lock"):
        lock.unlink()
    subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (root / "file").touch()
    convert(root, "vfs", into=folder / "new")
    subprocess.run(["umount", str(root)], check=True)
    assert opened(folder, "vfs", "new").check().ok
    assert list(root.rglob("*.lock")) == []
