"""What only the zfs driver does: datasets, clones, quotas, what is in use or has gone, and crashes at every command.

On OpenZFS where the machine has it, else on a scripted one (tests/zfs.py).
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from layerhold.config import Config
from layerhold.convert import convert
from layerhold.drivers import zfs_datasets
from layerhold.drivers.base import LayerSpec, MountOptions
from layerhold.drivers.choose import Place, open_driver
from layerhold.errors import BadConfig, DriverError, DriverPrerequisites, InvalidID, LayerUnknown, StorageError
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.linux import mountinfo
from layerhold.store import Store
from layerhold.testing import everything
from layerhold.tree.trash import Shredder
from tests import disks, stores, zfs
from tests.drivers.conftest import Bench, Tree

pytestmark = pytest.mark.root

MIB = 1 << 20
SPAN = (IdRange(container=0, host=100000, size=65536),)
MAPS = IdMappings(uids=SPAN, gids=SPAN)
OnZfs = tuple[Bench, zfs.Zfs]


def opened(bench: Bench) -> Store:
    options = list(bench.options)
    return Store.open(graphroot=bench.graphroot, runroot=bench.runroot, driver="zfs", options=options)


def sized(size: str) -> LayerSpec:
    return LayerSpec(storage_options=(("size", size),))


# -- layers


def test_layers_are_datasets(on_zfs: OnZfs) -> None:
    bench, place = on_zfs
    bench.new("base", tree={"file": b"1"})
    bench.new("child", "base", {"more": b"2"})
    assert sorted(place.names()) == ["base", "child"]
    (snapshot,) = place.names("snapshot")
    assert snapshot.startswith("base@")
    done = place.run("zfs", "get", "-Hp", "-o", "value", "mountpoint", f"{place.top}/child")
    assert done.stdout.strip() == "legacy"
    home = Path(bench.driver.home)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {
        "graph": 0o700,
        "tempdirs": 0o700,
    }
    assert str(home) in stores.mounts_below(home)
    mounted = bench.driver.mount("child", MountOptions())
    assert mounted == bench.driver.locations("child")["Mountpoint"] == str(home / "graph/child")
    assert bench.driver.locations("child")["Dataset"] == f"{place.top}/child"
    bench.driver.unmount("child")
    assert os.listdir(home / "graph") == []
    bench.remove("child")
    assert (place.names(), place.names("snapshot")) == (["base"], [])


def test_mapped_copies_get_new_owners(on_zfs: OnZfs) -> None:
    bench, _place = on_zfs
    bench.new("base", tree={"file": b"1"})
    for id, parent in (("mapped", "base"), ("new", None)):
        with bench.driver.building(id, parent, LayerSpec(writable=False, mappings=MAPS)) as build:
            build.publish()
    for id, owner in (("base", 0), ("mapped", 100000), ("new", 100000)):
        with bench.driver.own_files(id) as own:
            assert {os.stat(f"{own.path}/{name}").st_uid for name in (".", *os.listdir(own.path))} == {owner}


def test_mount_options(on_zfs: OnZfs) -> None:
    bench, _place = on_zfs
    bench.new("base", tree={"file": b"1"})
    bench.driver.mount("base", MountOptions(options=("nodev", "noatime"), read_only=True))
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "graph/base " in line]
    assert {"ro", "nodev", "noatime"} <= set(line.split()[5].split(","))
    assert bench.tree("base") == {"file": b"1"}
    bench.driver.unmount("base")
    driver = bench.open([*bench.options, "zfs.mountopt=nosuid,nodev"])
    driver.mount("base", MountOptions())
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "graph/base " in line]
    assert {"rw", "nodev", "nosuid"} <= set(line.split()[5].split(","))
    driver.unmount("base")


def test_status(on_zfs: OnZfs) -> None:
    bench, place = on_zfs
    status = dict(bench.driver.describe())
    assert {key: status.pop(key) for key in ("Space Used By Parent", "Space Available")}.keys()
    assert status == {
        "Zpool": place.top.partition("/")[0],
        "Zpool Health": "ONLINE",
        "Parent Dataset": place.top,
        "Parent Quota": "no",
        "Compression": "off",
    }


def test_a_copy_goes_on_without_its_layer(on_zfs: OnZfs) -> None:
    """Though snapshots that somebody takes regularly have the same names in both."""
    bench, place = on_zfs
    bench.new("base", tree={"file": b"1"})
    for copy in ("one", "two"):
        with bench.driver.duplicating(copy, "base", LayerSpec()) as build:
            build.publish()
    for name in ("base", "one", "two"):
        assert place.run("zfs", "snapshot", f"{place.top}/{name}@daily").returncode == 0
    bench.remove("base")
    assert sorted(place.names()) == ["one", "two"]
    assert bench.tree("one") == bench.tree("two") == {"file": b"1"}
    bench.remove("two")
    bench.remove("one")
    assert place.names("filesystem") == []


def test_a_layer_with_children_is_rebuilt(on_zfs: OnZfs) -> None:
    """Its quota stays; the children go on."""
    bench, place = on_zfs
    bench.new("base", tree={"file": b"1"}, spec=sized("20M"))
    bench.new("child", "base", {"more": b"2"})
    with bench.driver.rebuilding("base") as build:
        (Path(build.contents.path) / "new").write_bytes(b"3")
        build.publish()
    assert bench.tree("base") == {"file": b"1", "new": b"3"}
    assert bench.tree("child") == {"file": b"1", "more": b"2"}
    assert sorted(place.names()) == ["base", "child"]
    assert place.run("zfs", "get", "-Hp", "-o", "value", "quota", f"{place.top}/base").stdout == f"{20 * MIB}\n"
    bench.remove("child", "base")
    assert place.names() == []


# -- quotas


def test_a_quota_counts_what_is_new(on_zfs: OnZfs) -> None:
    bench, _place = on_zfs
    bench.new("base")
    bench.change("base", lambda top: (top / "big").write_bytes(os.urandom(3 * MIB)))
    bench.new("small", "base", spec=sized("4M"))
    bench.change("small", _fill)


def _fill(top: Path) -> None:
    assert MIB < stores.full_after(top / "more") < 6 * MIB


def test_a_layer_that_does_not_fit_leaves_nothing(on_zfs: OnZfs) -> None:
    bench, place = on_zfs
    with pytest.raises(OSError, match=r"quota|space"), bench.driver.building("full", None, sized("4M")) as build:
        _write(Path(build.contents.path) / "big", 12 * MIB)
    assert (place.names(), bench.aside()) == ([], [])
    bench.new("full", spec=sized("40M"), tree={"file": b"1"})


def _write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(0, size, MIB):
            file.write(os.urandom(MIB))
            file.flush()
            os.fsync(file.fileno())


@pytest.mark.parametrize(
    ("option", "kind", "words"),
    [
        (("size", "abc"), BadConfig, "invalid size: 'abc'"),
        (("size", "10X"), BadConfig, "invalid suffix: 'x'"),
        (("size", ""), BadConfig, "invalid size: ''"),
        (("size", "-1"), BadConfig, "invalid size"),
        (("inodes", "1"), BadConfig, "Unknown option inodes"),
    ],
)
def test_a_size_that_is_none(on_zfs: OnZfs, option: tuple[str, str], kind: type[Exception], words: str) -> None:
    bench, place = on_zfs
    with opened(bench) as store:
        with pytest.raises(kind, match=re.escape(words)):
            store.containers.create(storage_options=dict([option]))
        assert (place.names(), bench.aside(), list(store.containers), list(store.layers)) == ([], [], [], [])
        store.containers.create(storage_options={"size": "10M"})
        assert len(place.names()) == 1


# -- what is in use, and what has gone


def test_a_layer_in_use_is_destroyed_later(on_zfs: OnZfs) -> None:
    """By a process that has a file of it open, or that reads it."""
    bench, place = on_zfs
    with opened(bench) as store:
        layer = store.layers.create(id="busy")
        held = os.open(layer.mount(), os.O_RDONLY)
        layer.unmount()
        layer.delete()
        assert list(store.layers) == []
        (left,) = place.names()
        assert left.startswith("layerhold-aside-")
        opened(bench)
        assert place.names() == [left]
        store.layers.create(id="busy").delete()
        os.close(held)
        opened(bench)
        assert place.names() == []
    bench.new("read", tree={"file": b"1"})
    with bench.driver.contents("read", against=None) as contents:
        bench.remove("read")
        assert os.listdir(contents.path) == ["file"]
        bench.new("read", tree={"other": b"2"})
        bench.driver.remove("read", Shredder())
    bench.driver.sweep()
    assert (place.names(), bench.aside()) == ([], [])


def test_mounts_in_other_namespaces_go_with_the_mount_point(on_zfs: OnZfs) -> None:
    """Else a dataset would be in use for as long as some container that was started meanwhile runs."""
    bench, place = on_zfs
    bench.new("base")
    bench.driver.mount("base", MountOptions())
    with zfs.another_namespace():
        bench.driver.unmount("base")
        bench.remove("base")
        assert place.names() == []


def test_a_layer_that_somebody_has_cloned_is_destroyed_later(on_zfs: OnZfs) -> None:
    bench, place = on_zfs
    bench.new("base", tree={"file": b"1"})
    pool = place.top.partition("/")[0]
    assert place.run("zfs", "snapshot", f"{place.top}/base@mine").returncode == 0
    assert place.run("zfs", "clone", f"{place.top}/base@mine", f"{pool}/mine").returncode == 0
    bench.remove("base")
    assert len(place.names()) == 1
    bench.driver.sweep()
    assert len(place.names()) == 1
    assert place.run("zfs", "destroy", f"{pool}/mine").returncode == 0
    bench.driver.sweep()
    assert place.names() == []


def test_a_copy_with_the_snapshot_that_somebody_has_cloned(on_zfs: OnZfs) -> None:
    """Both have one of that name, so the copy cannot take the other over; the store can be opened all the same."""
    bench, place = on_zfs
    bench.new("base", tree={"file": b"1"})
    pool = place.top.partition("/")[0]
    with bench.driver.duplicating("copy", "base", LayerSpec()) as build:
        build.publish()
    for name in ("base", "copy"):
        assert place.run("zfs", "snapshot", f"{place.top}/{name}@daily").returncode == 0
    assert place.run("zfs", "clone", f"{place.top}/base@daily", f"{pool}/mine").returncode == 0
    bench.remove("base")
    assert len(place.names()) == 2
    bench.driver.sweep()
    assert bench.tree("copy") == {"file": b"1"}
    assert place.run("zfs", "destroy", f"{pool}/mine").returncode == 0
    bench.driver.sweep()
    assert place.names() == ["copy"]


def test_a_dataset_that_has_gone(on_zfs: OnZfs) -> None:
    """The layer cannot be used, that is said; it can be deleted, and made anew."""
    bench, place = on_zfs
    with opened(bench) as store:
        store.layers.create(id="base")
        assert place.run("zfs", "destroy", "-r", f"{place.top}/base").returncode == 0
        layer = store.layers["base"]
        for use in (layer.mount, lambda: layer.diff().__enter__(), lambda: store.layers.create(layer)):
            with pytest.raises(LayerUnknown, match="base: no such file or directory"):
                use()
        assert not store.check().ok
        layer.delete()
        assert store.check().ok
        with store.layers.create(id="base").mount() as top:
            (top / "file").write_bytes(b"1")


def test_the_top_has_gone(on_zfs: OnZfs) -> None:
    bench, place = on_zfs
    pool = place.top.partition("/")[0]
    bench.options = [f"zfs.fsname={pool}/none"]
    before = sorted(path.name for path in bench.graphroot.rglob("*"))
    with pytest.raises(DriverPrerequisites, match=f"{pool}/none: cannot open '{pool}/none': dataset does not exist"):
        bench.open()
    assert sorted(path.name for path in bench.graphroot.rglob("*")) == before


def test_the_programs_have_gone(on_zfs: OnZfs, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _place = on_zfs
    bench.new("base", tree={"file": b"1"})
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(DriverPrerequisites, match="the 'zfs' command is not available"):
            bench.open()
        with pytest.raises(OSError, match="zfs"):
            bench.new("child", "base")
        assert bench.tree("base") == {"file": b"1"}
    bench.driver.sweep()
    assert (bench.aside(), list(bench.driver.ids())) == ([], ["base"])


def test_datasets_of_others_are_left_alone(on_zfs: OnZfs) -> None:
    bench, place = on_zfs
    assert place.run("zfs", "create", f"{place.top}/home").returncode == 0
    assert place.run("zfs", "create", "-o", "mountpoint=legacy", f"{place.top}/old").returncode == 0
    assert place.run("zfs", "create", "-o", "mountpoint=legacy", f"{place.top}/{'a' * 64}").returncode == 0
    assert list(bench.driver.ids()) == ["a" * 64], "as Go's program names its layers"
    for name in ("home", "old"):
        with pytest.raises(DriverError, match="already exists"):
            bench.new(name)
    bench.remove("home")
    bench.remove("old")
    bench.driver.sweep()
    assert sorted(place.names()) == ["a" * 64, "home", "old"]
    assert bench.aside() == []
    with opened(bench) as store:
        store.collect_garbage()
    assert {"home", "old"} <= set(place.names())


def test_names_that_zfs_does_not_take(on_zfs: OnZfs) -> None:
    bench, place = on_zfs
    for id in ("a b", "ä", "a%b", "a@b", "x" * 250, "layerhold-aside-1"):
        assert not bench.driver.exists(id)
        bench.driver.unmount(id)
        bench.remove(id)
        for use in (bench.new, lambda id: bench.driver.mount(id, MountOptions())):
            with pytest.raises(InvalidID, match="no name that zfs has for a dataset"):
                use(id)
    assert (place.names(), bench.aside()) == ([], [])


def test_options(on_zfs: OnZfs) -> None:
    bench, _place = on_zfs
    for option, words in {
        "zfs.size=10G": 'unknown option "size" ("zfs.size=10G")',
        "zfs.nonsense=1": 'unknown option "nonsense"',
        "zfs.fsname": "unable to parse key/value option: zfs.fsname",
    }.items():
        with pytest.raises(BadConfig, match=re.escape(words)):
            bench.open([option])
    place = Place(graphroot=str(bench.graphroot), runroot=str(bench.runroot), additional=("/nowhere",))
    with pytest.raises(BadConfig, match="unknown option"):
        open_driver("zfs", place, options=bench.options, priority=())
    bench.open(["overlay.mountopt=nodev", "btrfs.size=1G"])


def test_a_graph_root_that_is_on_no_zfs(on_zfs: OnZfs) -> None:
    bench, _place = on_zfs
    assert mountinfo.filesystem_of(str(bench.graphroot)) != "zfs"
    words = f"no zfs dataset found for rootdir '{bench.graphroot}'"
    with pytest.raises(DriverPrerequisites, match=re.escape(words)) as raised:
        open_driver("zfs", Place(graphroot=str(bench.graphroot), runroot=""), options=(), priority=())
    assert "zfs.fsname" in raised.value.hint


# -- crashes


def _making(bench: Bench) -> None:
    bench.new("child", "base", {"more": b"2"})


def _removing(bench: Bench) -> None:
    bench.remove("child")


def _rebuilding(bench: Bench) -> None:
    with bench.driver.rebuilding("base") as build:
        (Path(build.contents.path) / "new").write_bytes(b"3")
        build.publish()


# What is done, the layers before, and those that there may be afterwards.
OLD: Tree = {"file": b"1"}
NEW: Tree = {"file": b"1", "new": b"3"}
CHILD: Tree = {"file": b"1", "more": b"2"}
WORKS: dict[str, tuple[Callable[[Bench], None], tuple[str, ...], list[dict[str, Tree]]]] = {
    "making": (_making, (), [{"base": OLD}, {"base": OLD, "child": CHILD}]),
    "removing": (_removing, ("child",), [{"base": OLD, "child": CHILD}, {"base": OLD}]),
    "rebuilding": (_rebuilding, ("child",), [{"base": OLD, "child": CHILD}, {"base": NEW, "child": CHILD}]),
}
_READING = ("list", "get")


class Interrupted:
    """Runs commands until one that changes something is the one of this number: then it calls `interrupt`.

    That is before the command, or `behind` a renaming, too: after others it is as before the next one.
    """

    def __init__(self, number: int, interrupt: Callable[[Sequence[str]], object], *, behind: bool) -> None:
        self._number, self._interrupt, self._behind = number, interrupt, behind
        self._real = zfs_datasets._run

    def __call__(self, *command: str) -> list[list[str]]:
        if command[1] not in _READING:
            self._count(command)
        done = self._real(*command)
        if self._behind and command[1] == "rename":
            self._count(command)
        return done

    def _count(self, command: Sequence[str]) -> None:
        self._number -= 1
        if self._number == 0:
            self._interrupt(command)

    @property
    def came_to_it(self) -> bool:
        return self._number <= 0


def _die(_command: Sequence[str]) -> None:
    os._exit(9)


def _fail(command: Sequence[str]) -> None:
    raise zfs_datasets.CommandFailed(command, "out of order")


def _killed(work: Callable[[Bench], None], bench: Bench, number: int) -> bool:
    """Work in a process that ends at this point; whether it came to that."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            zfs_datasets._run = Interrupted(number, _die, behind=True)
            work(bench)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def _failed(work: Callable[[Bench], None], bench: Bench, number: int) -> bool:
    """Work with a command that fails at this point; whether it came to that. Its words are the error."""
    with pytest.MonkeyPatch.context() as patch:
        run = Interrupted(number, _fail, behind=False)
        patch.setattr(zfs_datasets, "_run", run)
        try:
            work(bench)
        except StorageError as error:
            words = str(error)
        else:
            words = "out of order"
    assert words.endswith("out of order")
    return run.came_to_it


@pytest.mark.parametrize("interrupted", [_killed, _failed])
@pytest.mark.parametrize("name", list(WORKS))
def test_cut_short_at_every_command(
    on_zfs: OnZfs, name: str, interrupted: Callable[[Callable[[Bench], None], Bench, int], bool]
) -> None:
    """What is aside goes at the next start; the layers are as before the work, or as after it."""
    bench, place = on_zfs
    work, others, may_be = WORKS[name]
    found: dict[str, Tree] = {}
    number, more = 1, True
    while more:
        if found != may_be[0]:
            bench.remove(*found)
            bench.new("base", tree={"file": b"1"})
            for other in others:
                bench.new(other, "base", {"more": b"2"})
        more = interrupted(work, bench, number)
        bench.driver = bench.open()
        found = {name: bench.tree(name) for name in place.names()}
        assert found in may_be, number
        assert len(place.names("snapshot")) == len(found) - 1, number
        assert bench.aside() == []
        number += 1
    assert number > 2


# -- another driver


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on a file system with attributes of all kinds."""
    with disks.disk("ext4") as folder:
        yield folder


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_a_store_is_converted(on_zfs: OnZfs, elsewhere: Path, driver: str) -> None:
    bench, place = on_zfs
    can = everything.Can.here()
    with opened(bench) as store:
        base = store.layers.create(diff=io.BytesIO(everything.as_tar(everything.base(can))))
        top = store.layers.create(base, diff=io.BytesIO(everything.as_tar(everything.top(can))))
        with store.layers[top.id].mount() as path:
            (path / "written").write_bytes(b"1")
        store.shutdown()
    names = sorted(place.names())
    found = convert(bench.graphroot, driver, into=elsewhere / "new", options=place.options)
    assert (found.old_driver, found.layers) == ("zfs", 2)
    config = Config.load(graphroot=found.graphroot, runroot=elsewhere / "run", driver=driver)
    with Store.open(config) as store:
        with store.layers[top.id].mount() as path:
            assert (path / "written").read_bytes() == b"1"
        store.shutdown()
    assert sorted(place.names()) == names
    assert stores.mounts_below(bench.graphroot) == []
    with pytest.raises(DriverError, match="to convert to zfs"):
        convert(bench.graphroot, "zfs", into=elsewhere / "other")
