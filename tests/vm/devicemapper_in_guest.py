"""What test_devicemapper.py does in its guest: stores on real thin pools, used by Go's programs and by ours.

Arguments: what to do (a function below), and a Go containers-storage. What does not hold is an
AssertionError, which ends it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import layerhold
from layerhold.convert import convert
from layerhold.drivers import devicemapper_devices
from layerhold.drivers.survey import survey
from layerhold.errors import BadConfig, DriverError
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.linux import loop
from layerhold.linux.devmapper import Mapper, Target
from layerhold.tree.trash import Shredder
from tests import go_stores
from tests.stores import full_after, packed
from tests.vm.guest_store import GuestStore, use_kept

MIB = 1 << 20
BASE_SIZE = 320 * MIB  # xfs is not made smaller than 300 MiB
SIZES = ("dm.loopdatasize=700M", "dm.loopmetadatasize=16M")
XFS = (*SIZES, "dm.fs=xfs", "dm.basesize=320M")
POOL, POOL_SIZE = "storage-thinpool", 700 * MIB  # the name that Go's program gives to LVM's
ONE, TWO, THREE = (digit * 64 for digit in "123")
MAPS = IdMappings(uids=(IdRange(container=0, host=1000, size=10),), gids=(IdRange(container=0, host=2000, size=10),))


class Place(GuestStore):
    """A store on a file system in memory. There is no udev for Go's program to wait for."""

    def __init__(self, name: str, go: str, options: Sequence[str] = XFS) -> None:
        of_go = ("test=true", "dm.override_udev_sync_check=true")
        super().__init__(Path("/run", name), "devicemapper", go, options, of_go)
        self.home = self.root / "devicemapper"

    def file(self, name: str) -> Any:
        """What a file of `metadata` holds."""
        return json.loads((self.home / "metadata" / name).read_text())

    def devices(self) -> set[int]:
        """The IDs that the files of devices name."""
        names = {path.name for path in (self.home / "metadata").glob("[!.]*")}
        return {self.file(name)["device_id"] for name in names - {"deviceset-metadata", "transaction-metadata"}}

    def aside(self) -> list[str]:
        return sorted(path.name for path in (self.home / "tempdirs").glob("*"))

    def remove(self) -> None:
        with self.opened() as store:
            store.shutdown(force=True)
        assert not shown(), shown()
        shutil.rmtree(self.root)


def shown() -> list[str]:
    """The names of the devices that the kernel shows."""
    found = []
    for path in Path("/sys/block").glob("dm-*/dm/name"):
        try:
            found.append(path.read_text().strip())
        except OSError:  # it is just going
            continue
    return sorted(found)


def refusal(kind: type[Exception], ask: Callable[[], object]) -> str:
    try:
        ask()
    except kind as error:
        return str(error)
    raise AssertionError("it was not refused")


# --- stores of Go's programs, and of ours


def of_go(go: str) -> None:
    """A store that Go's program made is read and used here, and goes on being its own."""
    place = Place("store", go)
    content = packed(motd=b"hello\n", gone=b"x")
    Path("/run/content.tar").write_bytes(content)
    place.go("create-layer", "-i", ONE)
    place.go("import-layer", "-i", TWO, "-f", "/run/content.tar", ONE)
    status = place.go("status")
    read(place, content, status)
    use(place, content)
    place.remove()


def read(place: Place, content: bytes, status: str) -> None:
    """All that can be read of it."""
    with place.opened() as store:
        assert [layer.id for layer in store.layers] == [ONE, TWO]
        assert sorted(store.driver.ids()) == [ONE, TWO]
        with store.layers[TWO].diff() as stream:
            assert stream.read() == content
        assert [(change.path, change.kind) for change in store.layers[TWO].changes()] == [(b"/gone", 1), (b"/motd", 1)]
        assert store.layers[TWO].diff_size() == len(b"hello\nx")
        assert store.layers[ONE].changes() == []  # it was never mounted: there is nothing in it, not even `rootfs`
        report = store.check()
        assert report.ok, vars(report)
        same_rows(store, status)
        device = place.file(TWO)
        name = f"{prefix(place)}-{TWO}"
        assert store.driver.locations(TWO) == {
            "DeviceId": str(device["device_id"]),
            "DeviceName": name,
            "DeviceSize": str(BASE_SIZE),
        }


def use(place: Place, content: bytes) -> None:
    """Mounts, new layers, containers; of each something is done by the other program."""
    name = f"{prefix(place)}-{TWO}"
    with place.opened() as store:
        with store.mount(TWO) as path:
            assert path == place.home / "mnt" / TWO / "rootfs"
            assert name in shown()
            (path / "written").write_bytes(b"here")
            (path / "gone").unlink()
        assert name not in shown()
        assert not (place.home / "mnt" / TWO).exists()

        store.layers.create(store.layers[TWO], id=THREE, diff=io.BytesIO(packed(more=b"data")))
        image = store.images.create(layer=store.layers[THREE], id="image")
        box = store.containers.create(image=image, id="box")
    assert place.go("changes", THREE) == 'Add "/more"'
    assert "/written" in place.go("changes", TWO)
    mounted = Path(place.go("mount", "box"))
    assert sorted(path.name for path in mounted.iterdir()) == ["more", "motd", "written"]
    (mounted / "by-go").touch()
    with place.opened() as store:
        assert [change.path for change in box.layer.changes()] == [b"/by-go"]
        with store.mount(THREE) as path:  # beside the mount of its child
            assert (path / "more").read_bytes() == b"data"
    place.go("unmount", "box")
    with place.opened() as store:
        store.containers["box"].delete()
        assert place.aside() == []
    assert {ONE, TWO, THREE} <= set(place.go("layers").split())
    place.go("delete-image", "image")
    with place.opened() as store:
        assert list(store.driver.ids()) == []
        assert place.devices() == {1}
        store.layers.create(id=ONE)
        store.layers[ONE].apply(io.BytesIO(content))
    changed = place.go("changes", ONE)  # in any order
    assert sorted(changed.splitlines()) == ['Add "/gone"', 'Add "/motd"'], changed
    assert len(place.devices()) == 2


def same_rows(store: layerhold.Store, status: str) -> None:
    """`status` says the same, but for what is free, and the library that is not used here."""
    theirs = dict(line.split(": ", 1) for line in status.splitlines())
    ours = dict(store.status())
    assert list(ours) == list(theirs)
    varying = {"Driver Options", "Library Version", "Data Space Available", "Data Space Used", "Metadata Space Used"}
    varying |= {"Metadata Space Available"}
    assert {key: ours[key] for key in ours if key not in varying} == {
        key: theirs[key] for key in theirs if key not in varying
    }


def prefix(place: Place) -> str:
    info = place.home.stat()
    return f"container-{os.major(info.st_dev)}:{os.minor(info.st_dev)}-{info.st_ino}"


def of_ours(go: str) -> None:
    """A store that is made here, on ext4, is one for Go's program; layers and the base grow."""
    place = Place("store", go, (*SIZES, "dm.fs=ext4", "dm.basesize=64M", "dm.mkfsarg=-Onone,extent,64bit,^has_journal"))
    place.options = (*SIZES, "dm.fs=ext4", "dm.basesize=64M")
    with place.opened() as store:
        one = store.layers.create(id=ONE, diff=io.BytesIO(packed(motd=b"hello\n")), writable=False)
        image = store.images.create(layer=one, id="image")
        large = store.containers.create(image=image, id="large", storage_options={"size": "128M"})
        with store.mount("large") as path:
            assert 100 * MIB < size_of(path) < 128 * MIB
            assert full_after(path / "file") > 64 * MIB
        assert "smaller than 67.11MB" in refusal(
            BadConfig, lambda: store.containers.create(image=image, storage_options={"size": "32M"})
        )
        assert "Unknown option inodes" in refusal(
            BadConfig, lambda: store.containers.create(image=image, storage_options={"inodes": "32"})
        )
        limited = store.containers.create(image=image, id="small")
        with store.mount("small") as path:
            assert full_after(path / "file") < 64 * MIB
        data = place.home / "devicemapper/data"
        before = data.stat().st_blocks
        large.delete()
        assert data.stat().st_blocks * 512 < before * 512 - 64 * MIB  # the blocks are given back to the file
        limited.delete()
        mapped = store.containers.create(image=image, id="mapped", mappings=MAPS)
        with store.mount("mapped") as path:
            assert [(path / name).stat().st_uid for name in (".", "motd")] == [1000, 1000]
            assert mapped.layer.changes() == []
    mounted = Path(place.go("mount", ONE))
    assert (mounted / "motd").read_bytes() == b"hello\n"
    place.go("unmount", ONE)
    place.go("create-layer", "-i", TWO, ONE)
    with place.opened() as store:
        assert store.layers[TWO].changes() == []
    with place.opened(*place.options, "dm.basesize=96M") as store:
        assert place.file("base")["size"] == 96 * MIB
        store.layers.create(id=THREE)
        with store.mount(THREE) as path:
            assert size_of(path) > 80 * MIB
        store.shutdown()
    assert "Base device size cannot be smaller than 100.7MB" in refusal(DriverError, place.opened)
    place.options = SIZES
    converted(place)
    place.remove()
    usable = {answer.driver: answer for answer in survey(str(place.root))}
    assert usable["devicemapper"].usable, usable["devicemapper"]
    assert shown() == []


def converted(place: Place) -> None:
    """A way out of devicemapper: the store made anew for another driver."""
    found = convert(place.root, "vfs")
    assert found.layers == 5
    with layerhold.Store.open(graphroot=found.graphroot, runroot="/run/other", driver="vfs") as store:
        assert [change.path for change in store.layers[ONE].changes()] == [b"/motd"]
        assert sorted(container.id for container in store.containers) == ["mapped"]


def size_of(path: Path) -> int:
    info = os.statvfs(path)
    return info.f_blocks * info.f_frsize


# --- the store of Go's that is kept (tests/go_stores.py)

KEPT = ("dm.loopdatasize=128M", "dm.loopmetadatasize=4M", "dm.fs=ext4", "dm.basesize=32M")


def keep(go: str) -> None:
    """Have Go's program make it, and pack it."""
    place = Place("store", go, (*KEPT, "dm.mkfsarg=-Onone,extent,64bit,^has_journal"))
    go_stores.fill(place.go)
    assert not shown(), shown()
    go_stores.pack(place.root.parent, place.root.name, Path("/run/job/packed"))


def kept(go: str) -> None:
    """It is whole, and can be used, by both programs."""
    place = Place("store", go, KEPT)
    place.root.parent.mkdir()
    go_stores.unpack("devicemapper", place.root.parent)
    use_kept(place)
    place.remove()


# --- what is cut short, and what is in use


def cut_short(go: str) -> None:
    """Transactions that a crash cut short are rolled back, by ours and by Go's; so is what is in use deleted later."""
    place = Place("store", go)
    with place.opened() as store:
        store.layers.create(id=ONE, diff=io.BytesIO(packed(one=b"1")))
    before = place.devices()
    for clear_up in (place.opened, lambda: place.go("layers")):
        for step in ("_end", "_known"):
            crash_while_making(place, step)
            clear_up()
            place.opened()
            assert (place.aside(), place.devices()) == ([], before)
    broken = place.home / "tempdirs/temp-dir-1"
    broken.mkdir()
    (broken / "0-layer").write_text("{")  # as a loss of power may leave the file of a device
    (place.home / "tempdirs/lock-1").touch()
    place.opened()
    assert (place.aside(), place.devices()) == ([], before)
    crash_while_deleting(place)
    assert place.go("layers") == ""
    place.opened()
    assert place.devices() == {1}
    busy(place)
    place.remove()


def crash_while_making(place: Place, step: str) -> None:
    """Die after the device was made, with the transaction still open ("_end"), or before it was begun."""

    def making() -> None:
        with place.opened() as store:
            setattr(devicemapper_devices.DeviceSet, step, lambda *_: os._exit(9))
            store.layers.create(store.layers[ONE], id=TWO)

    die_in(making)


def crash_while_deleting(place: Place) -> None:
    def deleting() -> None:
        with place.opened() as store:
            devicemapper_devices.DeviceSet._end = lambda *_: os._exit(9)  # type: ignore[method-assign]
            store.layers[ONE].delete()

    die_in(deleting)


def die_in(work: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def busy(place: Place) -> None:
    """A layer that somebody reads is deleted all the same, and its device when it is read no more."""
    put_off_all = "dm.use_deferred_deletion=false"  # a layer whose record has gone is put off all the same
    for clear_up in (place.opened, lambda: place.go("layers")):
        with place.opened(*place.options, put_off_all) as store:
            store.layers.create(id=ONE, diff=io.BytesIO(packed(one=b"1")))
            with store.driver.contents(ONE, against=None) as contents:
                held = os.open(contents.path, os.O_RDONLY)
                store.driver.remove(ONE, Shredder())  # as where the disk is full
                assert os.listdir(held) == ["one"]
            store.layers[ONE].delete()
            os.close(held)
        deleted = [name for name in os.listdir(place.home / "metadata") if place.file(name).get("deleted")]
        assert len(deleted) <= 1
        clear_up()
        place.opened()
        assert place.devices() == {1}


# --- a pool of the user's own


def given_pool(go: str) -> None:
    """A pool that somebody made (`dm.thinpooldev`) is used, and left there."""
    mapper = Mapper()
    with ExitStack() as stack:
        data, metadata = (stack.enter_context(loop.attached(new_file(name))) for name in ("data", "metadata"))
        words = f"{metadata} {data} 128 0 1 skip_block_zeroing"
        mapper.create(POOL, Target(sectors=POOL_SIZE // 512, kind="thin-pool", words=words))
    place = Place("store", go, (f"dm.thinpooldev=/dev/mapper/{POOL}", "dm.fs=xfs", "dm.basesize=320M"))
    place.go("create-layer", "-i", ONE)
    with place.opened() as store:
        store.layers.create(store.layers[ONE], id=TWO, diff=io.BytesIO(packed(two=b"2")))
        assert dict(store.status())["Pool Name"] == POOL
        assert [change.path for change in store.layers[TWO].changes()] == [b"/two"]
    assert place.go("changes", TWO) == 'Add "/two"'
    assert "already has used data blocks" in refusal(DriverError, Place("other", go, place.options).opened)
    made = convert(place.root, "vfs", into="/run/of-given-pool", options=place.options)
    with layerhold.Store.open(graphroot=made.graphroot, runroot="/run/other", driver="vfs") as store:
        assert [change.path for change in store.layers[TWO].changes()] == [b"/two"]
    missing = Place("missing", go, ("dm.thinpooldev=nothing",))
    assert "the thin pool nothing is not there" in refusal(DriverError, missing.opened)

    # As Go's program leaves a store for which it has set LVM up.
    (place.home / "setup-config.json").write_text('{"Device":"/dev/sdb"}')
    with place.opened("dm.xfs_nospace_max_retries=3", "dm.use_deferred_removal=false") as store:
        with store.mount(TWO) as path:
            (number,) = Path("/sys/fs/xfs").glob("dm-*/error/metadata/ENOSPC/max_retries")
            assert number.read_text().strip() == "3"
            assert store.layers[TWO].diff_size() == 1
            assert (path / "two").read_bytes() == b"2"
        assert shown() == [POOL]
        store.shutdown(force=True)
    assert shown() == [POOL]
    mapper.remove(POOL)
    on_devices(go)


def on_devices(go: str) -> None:
    """A pool on two devices of the user's own."""
    with ExitStack() as stack:
        data, metadata = (stack.enter_context(loop.attached(new_file(name))) for name in ("data2", "metadata2"))
        options = (f"dm.datadev={data}", f"dm.metadatadev={metadata}", "dm.fs=ext4", "dm.basesize=64M")
        place = Place("devices", go, options)
        with place.opened() as store:
            store.layers.create(id=ONE, diff=io.BytesIO(packed(one=b"1")))
            assert dict(store.status())["Data file"] == data
            store.shutdown()
        assert not (place.home / "devicemapper").exists()
        assert place.go("layers") == ONE
        place.remove()


def new_file(name: str) -> str:
    path = Path("/run", name)
    with path.open("wb") as file:
        file.truncate(16 * MIB if name.startswith("metadata") else POOL_SIZE)
    return str(path)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
