"""What zfs_real.py does in its guest: stores on a pool of OpenZFS, used by Go's programs and by ours.

Arguments: what to do (a function below), and a Go containers-storage. What does not hold is an AssertionError, which
ends it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import layerhold
from layerhold.convert import convert
from layerhold.drivers.survey import survey
from layerhold.linux import loop, mountinfo
from tests import go_stores, zfs
from tests.stores import packed
from tests.vm.guest_store import GuestStore, use_kept

ONE, TWO, THREE, FOUR = (digit * 64 for digit in "1234")


class Shared(GuestStore):
    """A store that both programs use. Its options name the dataset, unless the graph root lies on it."""

    def __init__(self, folder: Path, top: str, go: str, *, named: bool) -> None:
        super().__init__(folder, "zfs", go, (f"zfs.fsname={top}",) if named else ())
        self.top = top

    def datasets(self) -> list[str]:
        done = subprocess.run(["zfs", "list", "-H", "-d", "1", "-o", "name", self.top], check=True, capture_output=True)
        return sorted(name.rpartition("/")[2] for name in done.stdout.decode().split() if name != self.top)


# -- a store of Go's, elsewhere than its datasets


def of_go(go: str) -> None:
    """A store that Go's program made is read and used here, and goes on being its own."""
    with zfs.place() as place:
        store = Shared(place.folder, place.top, go, named=True)
        content = packed(motd=b"hello\n", gone=b"x")
        Path("/run/content.tar").write_bytes(content)
        store.go("create-layer", "-i", ONE)
        store.go("import-layer", "-i", TWO, "-f", "/run/content.tar", ONE)
        _read(store, content)
        _use(store)
        _labelled_by_hand(store)
        print("of_go holds")


def _read(shared: Shared, content: bytes) -> None:
    with shared.opened() as store:
        assert [layer.id for layer in store.layers] == sorted(store.driver.ids()) == [ONE, TWO]
        with store.layers[TWO].diff() as stream:
            assert stream.read() == content
        assert [(change.path, change.kind) for change in store.layers[TWO].changes()] == [(b"/gone", 1), (b"/motd", 1)]
        assert store.layers[TWO].diff_size() == len(b"hello\nx")
        assert store.layers[ONE].changes() == []
        assert store.check().ok, vars(store.check())
        _same_rows(store, shared.go("status"))


def _same_rows(store: layerhold.Store, status: str) -> None:
    theirs = dict(line.split(": ", 1) for line in status.splitlines())
    ours = dict(store.status())
    assert list(ours) == list(theirs), (ours, theirs)
    varying = {"Driver Options", "Space Used By Parent", "Space Available"}
    assert {key: ours[key] for key in ours if key not in varying} == {
        key: theirs[key] for key in theirs if key not in varying
    }
    assert ours["Space Available"].isdigit() == theirs["Space Available"].isdigit() is True


def _use(shared: Shared) -> None:
    """Mounts, new layers, containers; of each something is done by the other program."""
    with shared.opened() as store:
        with store.mount(TWO) as path:
            assert path == shared.root / "zfs/graph" / TWO
            (path / "written").write_bytes(b"here")
            (path / "gone").unlink()
        store.layers.create(store.layers[TWO], id=THREE, diff=io.BytesIO(packed(more=b"data")))
        image = store.images.create(layer=store.layers[THREE], id="image")
        box = store.containers.create(image=image, id="box", storage_options={"size": "20M"})
    assert shared.go("changes", THREE) == 'Add "/more"'
    assert "/written" in shared.go("changes", TWO)
    mounted = Path(shared.go("mount", "box"))
    assert sorted(path.name for path in mounted.iterdir()) == ["more", "motd", "written"]
    (mounted / "by-go").touch()
    with shared.opened() as store:
        assert [change.path for change in box.layer.changes()] == [b"/by-go"]
        assert store.layers[box.layer.id].mount_count == 1
        with store.mount(THREE) as path:  # beside the mount of its child
            assert (path / "more").read_bytes() == b"data"
    shared.go("unmount", "box")
    with shared.opened() as store:
        store.containers["box"].delete()
    assert shared.datasets() == [ONE, TWO, THREE]
    shared.go("create-layer", "-i", FOUR, THREE)
    with shared.opened() as store:
        assert store.layers[FOUR].changes() == []
        store.layers[FOUR].delete()
        store.layers[TWO].apply(io.BytesIO(packed(later=b"1")))  # made anew, with a layer on it
    assert '"/more"' in shared.go("changes", THREE)
    shared.go("delete-image", "image")
    assert shared.datasets() == []
    assert shared.go("layers") == ""


def _labelled_by_hand(shared: Shared) -> None:
    """A layer whose name is no ID is Go's own: it is used; but its dataset stays when its record is deleted here."""
    shared.go("create-layer", "-i", "by-hand")
    with shared.opened() as store:
        with store.mount("by-hand") as path:
            (path / "file").write_bytes(b"1")
        store.layers["by-hand"].delete()
    assert shared.datasets() == ["by-hand"]
    subprocess.run(["zfs", "destroy", f"{shared.top}/by-hand"], check=True)


# -- a store of ours, on its datasets


def of_ours(go: str) -> None:
    """The graph root lies on a dataset, so no option is needed; the driver is found, and told of."""
    with zfs.place() as place:
        folder = place.folder / "on"
        folder.mkdir()
        subprocess.run(["mount", "-i", "-t", "zfs", place.top, str(folder)], check=True)
        shared = Shared(folder, place.top, go, named=False)
        mount = mountinfo.mount_of(str(folder / "root"))
        assert (mount.kind, mount.source) == ("zfs", place.top)
        answers = {answer.driver: answer for answer in survey(str(shared.root))}
        assert answers["zfs"].usable, answers["zfs"]
        assert answers["zfs"].quota
        assert shared.datasets() == []
        with shared.opened() as store:
            store.layers.create(id=ONE, diff=io.BytesIO(packed(motd=b"hello\n")))
            store.layers.create(store.layers[ONE], id=TWO, diff=io.BytesIO(packed(more=b"data")))
        with shared.opened(driver=None) as store:
            assert store.driver.name == "zfs"
        assert shared.go("layers").split() == [ONE, TWO]
        assert shared.go("changes", TWO) == 'Add "/more"'
        read_only = Path(shared.go("mount", TWO))
        assert sorted(os.listdir(read_only)) == ["more", "motd"]
        shared.go("unmount", TWO)
        shared.go("create-layer", "-i", THREE, TWO)
        shared.go("delete-layer", THREE)
        assert shared.datasets() == [ONE, TWO]
        _converted(shared)
        shared.go("delete-layer", TWO)
        shared.go("delete-layer", ONE)
        assert shared.datasets() == []
        _mounted_to_read(shared)
        print("of_ours holds")


def _converted(shared: Shared) -> None:
    """Beside it on zfs, for overlay if the kernel has that on zfs, else for vfs."""
    usable = {answer.driver for answer in survey(str(shared.root)) if answer.usable}
    print("usable on zfs:", sorted(usable))
    for driver in sorted(usable & {"overlay", "vfs"}):
        found = convert(shared.root, driver)
        with layerhold.Store.open(graphroot=found.graphroot, runroot="/run/converted", driver=driver) as store:
            assert [change.path for change in store.layers[TWO].changes()] == [b"/more"]
            store.shutdown()


def _mounted_to_read(shared: Shared) -> None:
    """A dataset that somebody has mounted for reading alone can be read all the same."""
    with shared.opened() as store:
        store.layers.create(id=ONE, diff=io.BytesIO(packed(motd=b"hello\n")))
        Path("/run/point").mkdir()
        subprocess.run(["mount", "-i", "-o", "ro", "-t", "zfs", f"{shared.top}/{ONE}", "/run/point"], check=True)
        assert [change.path for change in store.layers[ONE].changes()] == [b"/motd"]
        subprocess.run(["umount", "/run/point"], check=True)
        store.layers[ONE].delete()
        store.shutdown()


# -- the store of Go's that is kept (tests/go_stores.py): the graph root, and the file with its pool

KEPT = Path("/run/kept")
_POOL, _POOL_SIZE = "kept", 64 << 20  # the least


def keep(go: str) -> None:
    """Have Go's program make it, and pack it."""
    KEPT.mkdir()
    with (KEPT / "pool").open("wb") as file:
        file.truncate(_POOL_SIZE)
    with loop.attached(str(KEPT / "pool")) as device:
        _run("zpool", "create", "-O", "xattr=sa", "-O", "acltype=posixacl", "-m", "none", _POOL, device)
    _run("zfs", "create", "-o", "mountpoint=legacy", f"{_POOL}/layers")
    shared = Shared(KEPT, f"{_POOL}/layers", go, named=True)
    go_stores.fill(shared.go)
    _run("zpool", "trim", "--wait", _POOL)
    _run("zpool", "export", _POOL)
    (KEPT / "run").rename("/run/gone")
    go_stores.pack(KEPT.parent, KEPT.name, Path("/run/job/packed"))


def kept(go: str) -> None:
    """It is whole, and can be used, by both programs."""
    go_stores.unpack("zfs", KEPT.parent)
    with loop.attached(str(KEPT / "pool")) as device:
        _run("zpool", "import", "-d", device, _POOL)
    use_kept(Shared(KEPT, f"{_POOL}/layers", go, named=True))
    print("kept holds")


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
