"""What only the btrfs driver does: snapshots, subvolumes in subvolumes, limits, and what ordinary users may do."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerhold.config import Config
from layerhold.drivers import btrfs_subvolumes
from layerhold.drivers.base import Driver, LayerSpec, MountOptions
from layerhold.drivers.btrfs import BtrfsDriver
from layerhold.errors import BadConfig, DriverError, StorageError
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.linux import btrfs as calls
from layerhold.store import Store
from layerhold.testing import trees
from layerhold.tree.trash import Shredder
from tests import stores
from tests.drivers.conftest import Bench, write
from tests.users import OrdinaryUser

pytestmark = pytest.mark.root

MIB = 1 << 20
SPAN = (IdRange(container=0, host=100000, size=65536),)
MAPS = IdMappings(uids=SPAN, gids=SPAN)


def home(bench: Bench) -> Path:
    return bench.graphroot / "btrfs"


def layer(bench: Bench, id: str) -> Path:
    return home(bench) / "subvolumes" / id


def quotas_are_on(bench: Bench) -> bool:
    with btrfs_subvolumes.opened(str(home(bench))) as fd:
        return calls.quotas_are_on(fd)


def count(bench: Bench) -> None:
    with btrfs_subvolumes.opened(str(home(bench))) as fd:
        calls.wait_for_counts(fd)


def groups(bench: Bench) -> dict[int, str]:
    """The quota groups of subvolumes and their limits, as the file system's own program shows them."""
    words = ["btrfs", "qgroup", "show", "--raw", "-r", str(bench.graphroot)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith("0/")]
    return {int(row[0].removeprefix("0/")): row[3] for row in rows}


def number(path: Path) -> int:
    with btrfs_subvolumes.opened(str(path)) as fd:
        return calls.number(fd)


def fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())


# -- layers


def test_layers_are_subvolumes(btrfs: Bench) -> None:
    btrfs.new("base", tree={"file": b"1"})
    btrfs.new("child", "base", {"more": b"2"})
    for id in ("base", "child"):
        assert calls.is_subvolume(layer(btrfs, id).stat())
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in home(btrfs).iterdir()} == {
        "subvolumes": 0o700,
        "tempdirs": 0o700,
    }
    assert str(home(btrfs)) in stores.mounts_below(btrfs.graphroot)


def test_a_snapshot_shares_its_files(btrfs: Bench) -> None:
    btrfs.new("base")
    fill(layer(btrfs, "base") / "big", 8 * MIB)
    os.sync()
    before = os.statvfs(btrfs.graphroot).f_bfree
    for child in range(20):
        btrfs.new(f"child{child}", "base")
    os.sync()
    assert (before - os.statvfs(btrfs.graphroot).f_bfree) * 4096 < 4 * MIB


def test_a_snapshot_keeps_everything(btrfs: Bench) -> None:
    btrfs.new("base")
    top = layer(btrfs, "base")
    os.mknod(top / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    (top / "file").write_bytes(b"1")
    os.link(top / "file", top / "again")
    os.setxattr(top / "file", "user.mark", b"x")
    os.setxattr(top / "file", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.utime(top / "file", ns=(1, 2))
    btrfs.new("child", "base")
    assert not trees.differences(trees.rows(top), trees.rows(layer(btrfs, "child")))


def test_mapped_copies_get_new_owners(btrfs: Bench) -> None:
    btrfs.new("base", tree={"file": b"1"})
    spec = LayerSpec(writable=False, mappings=MAPS)
    with btrfs.driver.building("mapped", "base", spec) as build:
        build.publish()
    for path, owner in ((layer(btrfs, "base"), 0), (layer(btrfs, "mapped"), 100000)):
        assert {path.stat().st_uid, (path / "file").stat().st_gid} == {owner}


def test_a_new_mapped_layer_is_its_containers(btrfs: Bench) -> None:
    with btrfs.driver.building("mapped", None, LayerSpec(mappings=MAPS)) as build:
        build.publish()
    assert layer(btrfs, "mapped").stat().st_uid == 100000


def test_layers_that_are_plain_directories(btrfs: Bench) -> None:
    """A store that was copied by `cp -a` has no subvolumes."""
    write(layer(btrfs, "base"), {"file": b"1"})
    btrfs.new("child", "base", {"more": b"2"})
    assert btrfs.tree("child") == {"file": b"1", "more": b"2"}
    assert calls.is_subvolume(layer(btrfs, "child").stat())
    with btrfs.driver.rebuilding("base") as build:
        build.publish()
    assert calls.is_subvolume(layer(btrfs, "base").stat())
    btrfs.remove("base", "child")
    assert list(btrfs.driver.ids()) == []


def test_mount_options(btrfs: Bench) -> None:
    btrfs.new("base")
    assert btrfs.driver.mount("base", MountOptions(options=("ro",))) == str(layer(btrfs, "base"))
    with pytest.raises(DriverError, match="btrfs driver does not support mount options"):
        btrfs.driver.mount("base", MountOptions(options=("nodev",)))


def test_found_without_being_named(btrfs: Bench) -> None:
    btrfs.new("base")

    def found() -> Driver:
        return Store.open(graphroot=btrfs.graphroot, runroot=btrfs.runroot).driver

    assert found().name == "btrfs"


def test_by_way_of_links(btrfs: Bench) -> None:
    link = btrfs.graphroot.parent / "link"
    for place in (btrfs.graphroot, home(btrfs)):
        link.symlink_to(place)
        driver = BtrfsDriver(str(link), ["btrfs.min_space=1M"])
        with driver.building("base", None, LayerSpec()) as build:
            build.publish()
        with driver.building("child", "base", LayerSpec()) as build:
            build.publish()
        with driver.trash() as trash:
            driver.remove("base", trash)
        assert list(driver.ids()) == ["child"]
        driver.shutdown()
        link.unlink()


def test_a_root_for_images_has_their_records_alone(btrfs: Bench) -> None:
    config = Config.load(graphroot=btrfs.graphroot, runroot=btrfs.runroot, driver="btrfs")
    images = btrfs.graphroot.parent / "images"
    with Store.open(config.replace(imagestore=str(images))) as store:
        below = store.layers.create(writable=False)
        above = store.layers.create(below)
        assert {layer(btrfs, below.id).is_dir(), layer(btrfs, above.id).is_dir()} == {True}
        assert below.id in (images / "btrfs-layers/layers.json").read_text()
        assert store.check(unreferenced_for=1e9).ok
        assert store.collect_garbage() == []
        above.delete()
        below.delete()
        assert list(store.driver.ids()) == []


def test_status(btrfs: Bench) -> None:
    assert btrfs.driver.describe() == (("Build Version", f"Linux {os.uname().release}"), ("Library Version", "none"))


# -- subvolumes in layers


def nest(top: Path) -> None:
    """Make subvolumes in a layer, as a container may: one in another, one of them read-only, one deep."""
    (top / "a/b").mkdir(parents=True)
    for path in (top / "outer", top / "outer/inner", top / "a/b/deep"):
        btrfs_subvolumes.create(str(path))
        (path / "file").write_bytes(path.name.encode())
    subprocess.run(["btrfs", "property", "set", str(top / "a/b/deep"), "ro", "true"], check=True)


NESTED = {
    "a": None,
    "a/b": None,
    "a/b/deep": None,
    "a/b/deep/file": b"deep",
    "outer": None,
    "outer/file": b"outer",
    "outer/inner": None,
    "outer/inner/file": b"inner",
}


def test_layers_above_have_the_subvolumes_too(btrfs: Bench) -> None:
    btrfs.new("base")
    nest(layer(btrfs, "base"))
    btrfs.new("child", "base")
    assert btrfs.tree("child") == NESTED
    (layer(btrfs, "child") / "outer/inner/file").write_bytes(b"changed")
    assert btrfs.tree("base") == NESTED


def test_layers_with_subvolumes_are_removed(btrfs: Bench) -> None:
    btrfs.new("base")
    nest(layer(btrfs, "base"))
    btrfs.new("child", "base")
    btrfs.remove("base")
    assert btrfs.tree("child") == NESTED
    btrfs.remove("child")
    assert (list(btrfs.driver.ids()), btrfs.aside()) == ([], [])


def test_removing_follows_no_link(btrfs: Bench) -> None:
    btrfs.new("base", tree={"a/file": b"1"})
    btrfs_subvolumes.create(str(layer(btrfs, "base") / "a/sub"))
    btrfs.new("other", tree={"sub/file": b"2"})
    (layer(btrfs, "base") / "link").symlink_to(layer(btrfs, "other"))
    btrfs.remove("base")
    assert btrfs.tree("other") == {"sub": None, "sub/file": b"2"}


def test_removing_without_room(btrfs: Bench) -> None:
    btrfs.new("base")
    nest(layer(btrfs, "base"))
    btrfs.driver.remove("base", Shredder())
    assert list(btrfs.driver.ids()) == []


def test_many_subvolumes_in_one(btrfs: Bench) -> None:
    """The kernel tells of 255 at once."""
    btrfs.new("base")
    for index in range(300):
        btrfs_subvolumes.create(str(layer(btrfs, "base") / f"sub{index}"))
    with btrfs_subvolumes.opened(str(layer(btrfs, "base"))) as fd:
        assert len({nested.number for nested in calls.nested(fd)}) == 300
    btrfs.remove("base")
    assert list(btrfs.driver.ids()) == []


# -- limits


def limited(bench: Bench, id: str, size: str, *options: str, parent: str | None = None, writable: bool = True) -> None:
    bench.driver = bench.open([f"btrfs.size={size}", *options])
    with bench.driver.building(id, parent, LayerSpec(writable=writable)) as build:
        build.publish()


def test_writable_layers_are_limited(btrfs: Bench) -> None:
    assert not quotas_are_on(btrfs)
    limited(btrfs, "image", "8M", writable=False)
    assert not quotas_are_on(btrfs)
    limited(btrfs, "base", "8M")
    assert quotas_are_on(btrfs)
    kept = home(btrfs) / "quotas/base"
    assert kept.read_text() == str(8 * MIB)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o644
    assert sorted(os.listdir(kept.parent)) == ["base"]
    count(btrfs)
    assert groups(btrfs)[number(layer(btrfs, "base"))] == str(8 * MIB)
    assert groups(btrfs)[number(layer(btrfs, "image"))] == "none"
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        fill(layer(btrfs, "base") / "big", 12 * MIB)


def test_a_limit_of_its_own(btrfs: Bench) -> None:
    btrfs.driver = btrfs.open(["btrfs.size=8M", "btrfs.min_space=2M"])
    with btrfs.driver.building("own", None, LayerSpec(storage_options=(("size", "4M"),))) as build:
        build.publish()
    assert (home(btrfs) / "quotas/own").read_text() == str(4 * MIB)
    for options, words in (
        (("size", "x"), "invalid size: 'x'"),
        (("foo", "1"), 'unknown option "foo" ("foo=1")'),
        (("size", "1M"), "btrfs: storage size cannot be less than 2.097MB"),
    ):
        with pytest.raises(StorageError) as raised:
            btrfs.new("x", spec=LayerSpec(storage_options=(options,)))
        assert str(raised.value) == words
    assert (list(btrfs.driver.ids()), btrfs.aside()) == (["own"], [])


def test_filling_a_layer_beyond_its_limit_leaves_nothing(btrfs: Bench) -> None:
    btrfs.driver = btrfs.open(["btrfs.size=8M"])

    def too_much() -> None:
        with btrfs.driver.building("base", None, LayerSpec()) as build:
            count(btrfs)
            fill(Path(build.contents.path) / "big", 12 * MIB)

    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        too_much()
    assert (list(btrfs.driver.ids()), btrfs.aside()) == ([], [])


def test_a_limit_is_set_again(btrfs: Bench) -> None:
    limited(btrfs, "base", "8M")
    subprocess.run(["btrfs", "quota", "disable", str(btrfs.graphroot)], check=True)
    btrfs.driver.mount("base", MountOptions())
    count(btrfs)
    assert groups(btrfs)[number(layer(btrfs, "base"))] == str(8 * MIB)
    with btrfs.driver.rebuilding("base") as build:
        build.publish()
    assert groups(btrfs)[number(layer(btrfs, "base"))] == str(8 * MIB)
    assert (home(btrfs) / "quotas/base").read_text() == str(8 * MIB)


def test_a_limit_below_the_least_one(btrfs: Bench) -> None:
    with pytest.raises(DriverError) as raised:
        limited(btrfs, "base", "5M", "btrfs.min_space=10M")
    assert str(raised.value) == "btrfs: storage size cannot be less than 10.49MB"
    limited(btrfs, "image", "5M", "btrfs.min_space=10M", writable=False)
    assert (list(btrfs.driver.ids()), btrfs.aside()) == (["image"], [])


def test_the_least_limit_turns_quotas_on(btrfs: Bench) -> None:
    btrfs.driver = btrfs.open(["btrfs.min_space=10M"])
    assert quotas_are_on(btrfs)
    (home(btrfs) / "quotas").mkdir()
    btrfs.new("base")
    for content in ("5000", "nonsense", "", "-1"):
        (home(btrfs) / "quotas/base").write_text(content)
        btrfs.driver.mount("base", MountOptions())
    count(btrfs)
    assert groups(btrfs)[number(layer(btrfs, "base"))] == "none"
    btrfs.driver.shutdown()
    btrfs.driver = btrfs.open()
    assert quotas_are_on(btrfs)


def test_limits_and_quota_groups_go_with_their_layers(btrfs: Bench) -> None:
    limited(btrfs, "base", "8M")
    btrfs_subvolumes.create(str(layer(btrfs, "base") / "inner"))
    gone = {number(layer(btrfs, "base")), number(layer(btrfs, "base") / "inner")}
    count(btrfs)
    assert gone <= groups(btrfs).keys()
    subprocess.run(["mount", "-o", "remount,commit=1", str(btrfs.graphroot.parent)], check=True)  # not every 30 s
    btrfs.remove("base")
    assert {path.name for path in (home(btrfs) / "quotas").iterdir()} == {f".gone-{number}" for number in gone}
    for _attempt in range(100):
        subprocess.run(["btrfs", "subvolume", "sync", str(btrfs.graphroot)], check=True, capture_output=True)
        btrfs.driver.sweep()
        if not os.listdir(home(btrfs) / "quotas"):
            break
        time.sleep(0.1)
    assert os.listdir(home(btrfs) / "quotas") == []
    assert not gone & groups(btrfs).keys()


def test_what_is_noted_of_removed_subvolumes_may_be_anything(btrfs: Bench) -> None:
    (home(btrfs) / "quotas").mkdir()
    for name in (".gone-x", ".gone-99999", ".gone-"):
        (home(btrfs) / "quotas" / name).touch()
    btrfs.driver.sweep()
    subprocess.run(["btrfs", "quota", "enable", str(btrfs.graphroot)], check=True)
    (home(btrfs) / "quotas/.gone-99999").touch()
    btrfs.driver.sweep()
    assert sorted(os.listdir(home(btrfs) / "quotas")) == [".gone-", ".gone-x"]


def test_a_new_layer_does_not_have_the_limit_that_a_crash_left(btrfs: Bench) -> None:
    limited(btrfs, "base", "8M")
    shutil.rmtree(layer(btrfs, "base"))
    btrfs.driver = btrfs.open()
    btrfs.new("base")
    assert os.listdir(home(btrfs) / "quotas") == []


def test_options(btrfs: Bench) -> None:
    for option, words in (
        ("btrfs.size=abc", "invalid size: 'abc'"),
        ("btrfs.min_space=1x", "invalid suffix: 'x'"),
        ("btrfs.nonsense=1", 'unknown option "nonsense" ("btrfs.nonsense=1")'),
    ):
        with pytest.raises(BadConfig) as raised:
            btrfs.open([option])
        assert str(raised.value) == words
    with pytest.raises(DriverError, match="btrfs driver does not support mount options"):
        btrfs.open(["btrfs.mountopt=nodev"])
    with pytest.raises(BadConfig, match=r'^unknown option "imagestore" \("imagestore=/other"\)$'):
        BtrfsDriver(str(home(btrfs)), additional=["/other/btrfs"])


# -- crashes

KILLED = """
import os, signal, sys
from layerhold.drivers.base import LayerSpec
from layerhold.drivers.choose import Place, open_driver
from layerhold.linux import btrfs

driver = open_driver("btrfs", Place(graphroot=sys.argv[1], runroot=sys.argv[2]), options=(), priority=())
btrfs.destroy = lambda at, name: os.kill(os.getpid(), signal.SIGKILL)
with driver.trash() as trash:
    driver.remove("base", trash)
"""


def test_what_was_being_removed_is_swept(btrfs: Bench) -> None:
    btrfs.new("base", tree={"file": b"1"})
    nest(layer(btrfs, "base"))
    words = [sys.executable, "-c", KILLED, str(btrfs.graphroot), str(btrfs.runroot)]
    assert subprocess.run(words, check=False).returncode == -9
    assert len(btrfs.aside()) == 2
    assert list(btrfs.driver.ids()) == []
    btrfs.driver.sweep()
    assert btrfs.aside() == []


# -- ordinary users

WORK = """
import os, sys
from layerhold.drivers import btrfs_subvolumes
from layerhold.drivers.base import LayerSpec, MountOptions
from layerhold.drivers.choose import Place, open_driver
from layerhold.errors import DriverError
top = sys.argv[1]
place = Place(graphroot=top + "/graph", runroot=top + "/run")
driver = open_driver("btrfs", place, options=(), priority=())
for id, parent in (("base", None), ("child", "base"), ("grandchild", "child")):
    with driver.building(id, parent, LayerSpec()) as build:
        with open(build.contents.path + "/" + id, "w") as file:
            file.write(id)
        build.sync()
        build.publish()
inner = driver.mount("child", MountOptions()) + "/inner"
btrfs_subvolumes.create(inner)
os.mkdir(inner + "/closed")
with open(inner + "/closed/file", "w"):
    pass
os.chmod(inner + "/closed", 0)
btrfs_subvolumes.snapshot(inner, driver.mount("child", MountOptions()) + "/copy")
for options in (["btrfs.size=10M"], ["btrfs.min_space=10M"]):
    try:
        with open_driver("btrfs", place, options=options, priority=()).building("limited", None, LayerSpec()):
            pass
    except DriverError as error:
        print(str(error).replace(top, ""))
with driver.rebuilding("base") as build:
    build.publish()
with driver.trash() as trash:
    driver.remove("child", trash)
driver.sweep()
driver.shutdown()
print(sorted(driver.ids()), os.listdir(driver.home + "/tempdirs"), sorted(os.listdir(driver.path("grandchild"))))
"""


REFUSED = "failed to enable btrfs quota for /graph/btrfs: Operation not permitted"
LEFT = "['base', 'grandchild'] [] ['base', 'child', 'grandchild']"

# Its root is root here, too, and can read what is needed; all else is as for an ordinary user's.
NAMESPACE = """
import os, sys
from layerhold.linux import namespaces

def set_maps(process):
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{process}/{name}", "w") as file:
            file.write("0 0 1\\n1 100001 1000\\n")

namespaces.become_root(set_maps)
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""


@pytest.mark.parametrize("option", ["", "user_subvol_rm_allowed"])
def test_root_of_a_namespace_has_it_but_for_limits(btrfs: Bench, option: str) -> None:
    if option:
        subprocess.run(["mount", "-o", f"remount,{option}", str(btrfs.graphroot.parent)], check=True)
    place = btrfs.graphroot.parent / "of-user"
    place.mkdir()
    words = [sys.executable, "-c", NAMESPACE, WORK, str(place)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines() == [REFUSED, REFUSED, LEFT], done.stderr


@pytest.mark.parametrize("option", ["", "user_subvol_rm_allowed"])
def test_an_ordinary_user_has_it_but_for_limits(btrfs: Bench, ordinary_user: OrdinaryUser, option: str) -> None:
    if option:
        subprocess.run(["mount", "-o", f"remount,{option}", str(btrfs.graphroot.parent)], check=True)
    for above in btrfs.graphroot.parents:
        if not above.stat().st_mode & 0o001:
            pytest.skip(f"{above} is closed to ordinary users")
    place = btrfs.graphroot.parent / "of-user"
    place.mkdir()
    os.chown(place, ordinary_user.uid, ordinary_user.gid)
    done = ordinary_user.as_user([ordinary_user.python, "-c", WORK, str(place)])
    assert done.stdout.splitlines() == [REFUSED, REFUSED, LEFT]
