"""What only the overlay driver does: its layout, links, mounts and probes."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerhold.drivers import overlay_home, overlay_links, overlay_mount
from layerhold.drivers.base import ERASE, OVERLAY_MARKS, LayerSpec, MountOptions
from layerhold.drivers.choose import Place, open_driver
from layerhold.drivers.overlay_probe import Probe
from layerhold.errors import BadConfig, DriverError, DriverNotSupported
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.linux import mounts, selinux
from layerhold.linux.mountinfo import mount_of
from tests import stores
from tests.drivers.conftest import Bench

pytestmark = pytest.mark.root

DEEP = 300


def layer(overlay: Bench, id: str) -> Path:
    return Path(overlay.driver.home) / id


def link(overlay: Bench, id: str) -> Path:
    return Path(overlay.driver.home) / "l" / (layer(overlay, id) / "link").read_text()


def chain(overlay: Bench, count: int) -> str:
    """Make a chain of layers, each with a file of its own; give the ID of the last."""
    above = None
    for number in range(count):
        id = f"{number:064x}"
        overlay.new(id, above, {f"file{number}": b"%d" % number, "same": b"%d" % number})
        above = id
    assert above is not None
    return above


def mountinfo(point: Path) -> str:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next(line for line in lines if line.split()[4] == str(point))


@contextmanager
def mounted(overlay: Bench, id: str, options: MountOptions | None = None) -> Iterator[Path]:
    path = overlay.driver.mount(id, options or MountOptions())
    try:
        yield Path(path)
    finally:
        overlay.driver.unmount(id)


# -- what is on disk


def test_layout_of_a_base_layer(overlay: Bench) -> None:
    overlay.new("base")
    here = layer(overlay, "base")
    modes = {path.name: oct(stat.S_IMODE(path.lstat().st_mode)) for path in here.iterdir()}
    assert modes == {"diff": "0o555", "link": "0o644", "work": "0o700", "merged": "0o700", "empty": "0o700"}
    assert stat.S_IMODE(here.stat().st_mode) == 0o700
    assert re.fullmatch(r"[A-Z2-7]{26}", (here / "link").read_text())
    assert os.readlink(link(overlay, "base")) == "../base/diff"
    assert stat.S_IMODE((here.parent / "l").stat().st_mode) == 0o755


def test_layout_of_a_layer_over_others(overlay: Bench) -> None:
    for id, parent in (("a", None), ("b", "a"), ("c", "b")):
        overlay.new(id, parent)
    here = layer(overlay, "c")
    assert sorted(os.listdir(here)) == ["diff", "link", "lower", "lower-layers", "merged", "work"]
    assert (here / "lower").read_text() == ":".join(f"l/{link(overlay, id).name}" for id in "ba")
    assert (here / "lower-layers").read_text() == "b:a"
    assert {stat.S_IMODE((here / name).stat().st_mode) for name in ("lower", "lower-layers")} == {0o644}


def test_home_is_mounted_on_itself_once_and_private(overlay: Bench) -> None:
    home = overlay.driver.home
    overlay.open()
    assert stores.mounts_below(home) == [home]
    assert "shared:" not in mountinfo(Path(home))


def test_home_behind_a_link_is_mounted_once(overlay: Bench, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(overlay.graphroot)
    overlay.graphroot = tmp_path / "link"
    overlay.open()
    assert len(stores.mounts_below(overlay.driver.home)) == 1


def test_home_is_not_mounted_when_told_so(overlay: Bench) -> None:
    overlay.driver.shutdown()
    overlay.open(["overlay.skip_mount_home=true"])
    assert stores.mounts_below(overlay.driver.home) == []


# -- contents


def test_contents_over_the_parent_are_the_changes(overlay: Bench) -> None:
    overlay.new("base", tree={"file": b"1", "gone": b"2"})
    overlay.new("child", "base")
    with mounted(overlay, "child") as top:
        (top / "new").touch()
        (top / "gone").unlink()
    with overlay.driver.contents("child", against="base") as contents:
        assert contents.deletions == OVERLAY_MARKS
        assert contents.lowers == (str(layer(overlay, "base") / "diff"),)
    assert overlay.tree("child", against="base") == {"new": b"", "-gone": None}


def test_contents_over_another_layer_are_whole(overlay: Bench) -> None:
    for id, parent in (("a", None), ("b", "a"), ("c", "b")):
        overlay.new(id, parent, {id: b""})
    with overlay.driver.contents("c", against="a") as contents:
        assert (contents.deletions, contents.lowers) == (ERASE, None)
        assert sorted(os.listdir(contents.path)) == ["a", "b", "c"]
        assert not any("/c/" in point or "/tempdirs/" in point for point in stores.mounts_below(overlay.driver.home))
    assert overlay.aside() == []


def test_contents_of_a_mounted_layer_are_those_of_its_mount(overlay: Bench) -> None:
    overlay.new("base", tree={"file": b"1"})
    overlay.new("child", "base")
    with mounted(overlay, "child") as top:
        (top / "new").touch()
        assert overlay.tree("child") == {"file": b"1", "new": b""}
        assert overlay.driver.is_mounted("child")


def test_without_native_diff_changes_are_whole(overlay: Bench) -> None:
    overlay.driver = overlay.open(["overlay.mountopt=metacopy=on"])
    assert not overlay.driver.features.native_diff
    overlay.new("base", tree={"file": b"1"})
    overlay.new("child", "base")
    overlay.change("child", lambda top: (top / "file").chmod(0o600))
    with overlay.driver.contents("child", against="base") as contents:
        assert contents.lowers is None
        assert (Path(contents.path) / "file").read_bytes() == b"1"


@pytest.mark.parametrize(
    "options", ["redirect_dir=on", "metacopy=on,redirect_dir=on", "index=on", "index=on,nfs_export=on", "xino=on"]
)
def test_layers_are_the_same_whatever_the_kernel_is_told(overlay: Bench, options: str) -> None:
    def work(top: Path) -> None:
        (top / "file").chmod(0o600)
        shutil.move(top / "dir", top / "moved")
        (top / "gone").unlink()

    overlay.driver = overlay.open([f"overlay.mountopt={options}"])
    overlay.new("base", tree={"file": b"1" * 5000, "dir": None, "dir/inner": b"2", "gone": b""})
    overlay.new("child", "base")
    overlay.change("child", work)
    overlay.new("grandchild", "child", {"more": b"3"})
    whole = {"file": b"1" * 5000, "moved": None, "moved/inner": b"2"}
    for driver in (overlay.driver, overlay.open()):  # also without the options
        overlay.driver = driver
        assert overlay.tree("child") == whole
        if driver.features.native_diff and "redirect" not in options:
            assert overlay.tree("child", against="base") == {**whole, "-dir": None, "-gone": None}
        else:
            assert overlay.tree("child", against="base") == whole
    overlay.driver = overlay.open([f"overlay.mountopt={options}"])
    assert overlay.tree("grandchild") == {**whole, "more": b"3"}
    overlay.change("child", lambda top: (top / "moved/inner").unlink())
    assert overlay.tree("child") == {"file": b"1" * 5000, "moved": None}


def test_what_metacopy_left_out_is_read_by_a_mount(overlay: Bench) -> None:
    """Go's program, without the option, has zeros in the place of the content."""
    with_option = overlay.open(["overlay.mountopt=metacopy=on"])
    overlay.new("base", tree={"file": b"1" * 5000, "dir": None, "dir/inner": b"2"})
    overlay.new("child", "base")
    plain, overlay.driver = overlay.driver, with_option
    overlay.change("child", lambda top: (top / "dir/inner").chmod(0o600))
    overlay.driver = plain
    inner = layer(overlay, "child") / "diff/dir/inner"
    assert "trusted.overlay.metacopy" in os.listxattr(inner)
    assert inner.read_bytes() == b"\0"
    with overlay.driver.contents("child", against="base") as contents:
        assert contents.lowers is None
        assert (Path(contents.path) / "dir/inner").read_bytes() == b"2"
    with mounted(overlay, "child") as top, pytest.raises(OSError, match=r"Operation not permitted|Input/output error"):
        (top / "dir/inner").read_bytes()
    overlay.new("grandchild", "child")
    assert overlay.tree("grandchild")["dir/inner"] == b"2"


def test_a_layer_of_composefs_is_refused_by_name(overlay: Bench) -> None:
    overlay.new("base", tree={"00": None, "00/1234": b"content"})
    overlay.new("child", "base")
    (layer(overlay, "base") / "composefs-data").mkdir()
    for id in ("base", "child"):
        with pytest.raises(DriverError, match="layer base is kept as composefs"):
            overlay.driver.mount(id, MountOptions())
        with pytest.raises(DriverError, match="layer base is kept as composefs"):
            overlay.tree(id)
    with pytest.raises(DriverError, match="layer base is kept as composefs"):
        overlay.new("other", "base")
    assert sorted(overlay.driver.ids()) == ["base", "child"]
    for id in ("child", "base"):
        with overlay.driver.trash() as trash:
            overlay.driver.remove(id, trash)
    assert list(overlay.driver.ids()) == []


def test_older_uppers_of_old_stores_are_part_of_the_layer(overlay: Bench) -> None:
    overlay.new("base", tree={"file": b"1"})
    overlay.new("child", "base", {"mine": b"2"})
    here = layer(overlay, "child")
    (here / "diff").rename(here / "diff1")
    (here / "diff").mkdir()
    overlay.new("grandchild", "child")
    for id in ("child", "grandchild"):
        assert overlay.tree(id) == {"file": b"1", "mine": b"2"}
        with mounted(overlay, id) as top:
            assert sorted(os.listdir(top)) == ["file", "mine"]
    assert overlay.tree("child", against="base") == {"file": b"1", "mine": b"2"}
    with overlay.driver.own_files("child") as own:
        assert os.listdir(own.path) == ["mine"]


def test_changing_a_mounted_layer_below_its_mount_is_refused(overlay: Bench) -> None:
    overlay.new("base")
    with mounted(overlay, "base"), pytest.raises(DriverError, match="is mounted"), overlay.driver.rebuilding("base"):
        pass


# -- mounts


def test_read_only_mount(overlay: Bench) -> None:
    overlay.new("base", tree={"file": b"1"})
    overlay.new("child", "base", {"mine": b"2"})
    for id, names in (("base", ["file"]), ("child", ["file", "mine"])):
        with mounted(overlay, id, MountOptions(read_only=True)) as top:
            assert sorted(os.listdir(top)) == names
            with pytest.raises(OSError, match="Read-only") as raised:
                (top / "new").touch()
            assert raised.value.errno == errno.EROFS
            assert "upperdir" not in mountinfo(top)


def test_flags_and_options_reach_the_kernel(overlay: Bench) -> None:
    overlay.new("base")
    with mounted(overlay, "base", MountOptions(options=("nodev", "noatime", "xino=off"))) as top:
        flags = mountinfo(top)
    assert "nodev,noatime" in flags
    assert "nosuid" not in flags


def test_options_of_the_store_are_used_unless_the_mount_has_its_own(overlay: Bench) -> None:
    overlay.driver = overlay.open(["overlay.mountopt=nosuid"])
    overlay.new("base")
    with mounted(overlay, "base") as top:
        assert "nosuid" in mountinfo(top)
    with mounted(overlay, "base", MountOptions(options=("nodev",))) as top:
        assert "nosuid" not in mountinfo(top)


def test_error_has_the_kernels_words(overlay: Bench) -> None:
    overlay.new("base")
    with pytest.raises(DriverError, match="Unknown parameter 'nonsense'"):
        overlay.driver.mount("base", MountOptions(options=("nonsense=1",)))
    assert not overlay.driver.is_mounted("base")


def test_a_label_is_an_option_of_the_mount_where_selinux_is_on(overlay: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    made: list[overlay_mount.MountSpec] = []
    monkeypatch.setattr(overlay_mount, "mount", made.append)
    monkeypatch.setattr(selinux, "check_context", lambda _label: None)
    overlay.new("base")
    for on in (False, True):
        monkeypatch.setattr(selinux, "enabled", lambda on=on: on)
        overlay.driver.mount("base", MountOptions(label=label))
    off, on_ = (overlay_mount.option_string(spec) for spec in made)
    assert on_ == f'{off},context="{label}"'


def test_a_label_is_no_matter_where_selinux_is_off(overlay: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux, "enabled", lambda: False)
    overlay.new("base", tree={"file": b"1"})
    with mounted(overlay, "base", MountOptions(label="system_u:object_r:container_file_t:s0:c1,c2")) as top:
        assert os.listdir(top) == ["file"]


def test_a_volatile_mount_can_be_followed_by_others(overlay: Bench) -> None:
    overlay.new("base")
    for volatile in (True, True, False):
        with mounted(overlay, "base", MountOptions(volatile=volatile)) as top:
            (top / "file").touch()
            assert ("volatile" in mountinfo(top)) == volatile


def test_merged_is_made_again(overlay: Bench) -> None:
    overlay.new("base", tree={"file": b"1"})
    (layer(overlay, "base") / "merged").rmdir()  # as Go's 1.43 does on unmounting
    with mounted(overlay, "base") as top:
        assert os.listdir(top) == ["file"]


def test_a_mount_that_another_process_made_is_used_and_undone(overlay: Bench) -> None:
    overlay.new("base")
    here = layer(overlay, "base")
    mounts.mount("tmpfs", str(here / "merged"), "tmpfs")
    assert overlay.driver.is_mounted("base")
    assert overlay.driver.mount("base", MountOptions()) == str(here / "merged")
    overlay.driver.unmount("base")
    assert not overlay.driver.is_mounted("base")


def test_deep_chain(overlay: Bench) -> None:
    last = chain(overlay, DEEP)
    with mounted(overlay, last) as top:
        assert len(os.listdir(top)) == DEEP + 1
        assert (top / "same").read_text() == str(DEEP - 1)
        assert (top / "file0").read_text() == "0"
        (top / "new").touch()
    assert (layer(overlay, last) / "diff/new").exists()
    with mounted(overlay, last, MountOptions(read_only=True)) as top:
        assert len(os.listdir(top)) == DEEP + 2


@pytest.mark.parametrize("home", ["plain", "with:colon", "with,comma", "with\\backslash", "with space"])
def test_names_that_the_option_string_must_escape(home: str) -> None:
    with stores.scratch("driver") as folder:
        (folder / home).mkdir()
        bench = Bench(folder / home, "overlay")
        last = chain(bench, 3)
        with mounted(bench, last) as top:
            assert sorted(os.listdir(top)) == ["file0", "file1", "file2", "same"]
            assert (top / "same").read_text() == "2"


def test_long_chain_on_a_kernel_without_the_newer_calls(overlay: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_spec: overlay_mount.MountSpec) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(overlay_mount, "_mount_by_calls", missing)
    last = chain(overlay, DEEP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside other threads
        with mounted(overlay, last) as top:
            assert len(os.listdir(top)) == DEEP + 1
            assert (top / "same").read_text() == str(DEEP - 1)
            (top / "new").touch()
    assert (layer(overlay, last) / "diff/new").exists()


def test_an_option_string_is_never_cut(overlay: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every length around the page size: mount(2) never gets a string that the kernel would cut."""
    given: list[int] = []
    classic = mounts.mount

    def recorded(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
        given.append(len(os.fsencode(data)))
        classic(source, target, kind, flags, data)

    monkeypatch.setattr(mounts, "mount", recorded)
    last = chain(overlay, 20)
    for length in range(40):
        target = layer(overlay, last) / "merged"
        lowers = tuple(str(layer(overlay, f"{number:064x}") / "diff") for number in range(19))
        spec = overlay_mount.MountSpec(target=str(target), lowers=lowers, flags=mounts.MS_RDONLY)
        room = overlay_mount.PAGE - 20 + length - len(overlay_mount.option_string(spec))
        # A name may be written in many ways: slashes make the string as long as it is to be.
        spec = spec.replace(lowers=(*lowers[:-1], lowers[-1].replace("/diff", "/" * (room + 1) + "diff")))
        overlay_mount.mount(spec)
        try:
            assert len(os.listdir(target)) == 20
        finally:
            mounts.umount(str(target))
    assert max(given) < overlay_mount.PAGE
    assert len(given) == 20


# -- damage


def test_lost_links_are_made_again(overlay: Bench) -> None:
    for id, parent in (("a", None), ("b", "a"), ("c", "b")):
        overlay.new(id, parent, {id: b""})
    lost = link(overlay, "a")
    lost.unlink()
    overlay.driver.sweep()
    assert os.readlink(lost) == "../a/diff"


def test_links_are_counted_without_looking_at_the_layers(overlay: Bench) -> None:
    home = overlay.driver.home
    for id in ("a", "b"):
        overlay.new(id)
    listed: list[str] = []

    def ids_in(home: str) -> Iterator[str]:
        listed.append(home)
        return iter("ab")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay_links, "ids_in", ids_in)
        assert overlay_links.are_as_many(home)
        assert not listed or os.stat(home).st_nlink < 2, "layers are counted though the file system says how many"
        (Path(home) / ".lost").mkdir()  # no layer, but a directory
        assert overlay_links.are_as_many(home)
        assert listed
    (layer(overlay, "a") / "link").unlink()
    link(overlay, "b").unlink()
    assert not overlay_links.are_as_many(home)


def test_layer_of_an_older_program_is_mounted_by_its_links(overlay: Bench) -> None:
    for id, parent in (("a", None), ("b", "a"), ("c", "b")):
        overlay.new(id, parent, {id: b""})
    (layer(overlay, "c") / "lower-layers").unlink()
    link(overlay, "a").unlink()
    with mounted(overlay, "c") as top:
        assert sorted(os.listdir(top)) == ["a", "b", "c"]
    assert link(overlay, "a").is_symlink()
    overlay.new("d", "c")
    assert (layer(overlay, "d") / "lower-layers").read_text() == "c:b:a"


def test_dangling_links_are_swept(overlay: Bench) -> None:
    overlay.new("a")
    left = Path(overlay.driver.home) / "l" / ("A" * 26)
    left.symlink_to("../gone/diff")
    overlay.driver.sweep()
    assert os.listdir(left.parent) == [link(overlay, "a").name]


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 26, b"A" * 27, b"a" * 26])
def test_a_damaged_link_file_is_written_again_from_its_link(overlay: Bench, damage: bytes) -> None:
    overlay.new("a")
    overlay.new("b")
    name = link(overlay, "a").name
    (layer(overlay, "a") / "link").write_bytes(damage)
    overlay_links.restore_links(overlay.driver.home, overlay.driver.ids())
    assert (layer(overlay, "a") / "link").read_text() == name
    assert len(os.listdir(Path(overlay.driver.home) / "l")) == 2


def test_an_empty_link_file_without_a_link_is_damage_of_that_layer_alone(overlay: Bench) -> None:
    overlay.new("a", tree={"file": b"1"})
    overlay.new("b")
    overlay.new("c", "b")
    link(overlay, "a").unlink()
    (layer(overlay, "a") / "link").write_bytes(b"")
    overlay.driver.sweep()
    assert link(overlay, "b").is_symlink()
    assert overlay.tree("a") == {"file": b"1"}
    with pytest.raises(DriverError, match="link is damaged or missing"):
        overlay.new("d", "a")
    overlay.remove("a")
    assert not overlay.driver.exists("a")


def test_a_missing_layer_is_named(overlay: Bench) -> None:
    for id, parent in (("a", None), ("b", "a"), ("c", "b")):
        overlay.new(id, parent)
    shutil.rmtree(layer(overlay, "a"))
    with pytest.raises(DriverError, match="layer c: the layer a below it is missing"):
        overlay.driver.mount("c", MountOptions())
    (layer(overlay, "c") / "lower-layers").unlink()
    (layer(overlay, "b") / "lower-layers").unlink()
    with pytest.raises(DriverError, match="layer c: the layer a below it is missing"):
        overlay.driver.mount("c", MountOptions())


KILLED = """
import os, signal, sys
from layerhold.drivers import overlay_mount
from layerhold.drivers.choose import Place, open_driver
graphroot, runroot = sys.argv[1:]
driver = open_driver("overlay", Place(graphroot=graphroot, runroot=runroot), options=(), priority=())
real = overlay_mount.mount
def kill(spec):
    real(spec)
    os.kill(os.getpid(), signal.SIGKILL)
overlay_mount.mount = kill
with driver.contents("child", against=None):
    pass
"""


def test_a_mount_that_a_killed_process_left_aside_is_undone(overlay: Bench) -> None:
    overlay.new("base", tree={"file": b"1"})
    overlay.new("child", "base")
    words = [sys.executable, "-c", KILLED, str(overlay.graphroot), str(overlay.runroot)]
    assert subprocess.run(words, check=False).returncode == -9
    assert any("tempdirs" in point for point in stores.mounts_below(overlay.driver.home))
    overlay.driver.sweep()
    assert overlay.aside() == []
    assert not any("tempdirs" in point for point in stores.mounts_below(overlay.driver.home))
    assert overlay.tree("base") == {"file": b"1"}


# -- what it can do here


def test_answers_are_remembered_under_gos_names(overlay: Bench) -> None:
    overlay.driver.describe()
    overlay.open(["overlay.mountopt=nodev,metacopy=on"]).describe()
    names = sorted(os.listdir(overlay.runroot / "overlay"))
    assert names == [
        "idmapped-lower-dir-true",
        "metacopy()-false",
        "metacopy(nodev,metacopy=on)-true",
        "native-diff()-true",
        "native-diff(nodev,metacopy=on)-false",
        "overlay-true",
        "volatile-true",
    ]


def test_remembered_answers_are_used(overlay: Bench) -> None:
    files = overlay.runroot / "overlay"
    (files / "native-diff()-true").rename(files / "native-diff()-false")
    assert not overlay.open().features.native_diff
    (files / "overlay-true").unlink()
    (files / "overlay-false").write_text("no such thing")
    with pytest.raises(DriverError, match="no such thing"):
        overlay.open()


def test_status_in_gos_order(overlay: Bench) -> None:
    assert [key for key, _value in overlay.driver.describe()] == [
        "Backing Filesystem",
        "Supports d_type",
        "Native Overlay Diff",
        "Using metacopy",
        "Supports shifting",
        "Supports volatile",
    ]


def test_a_refusal_leaves_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "_works", lambda _probe: "not here")
    with stores.scratch("driver") as folder:
        for _ in range(2):
            driver = open_driver(
                None, Place(graphroot=f"{folder}/graph", runroot=f"{folder}/run"), options=(), priority=()
            )
            assert driver.name == "vfs"
            assert os.listdir(folder / "graph") == ["vfs"]
        with pytest.raises(DriverNotSupported, match="not here: driver not supported"):
            open_driver("overlay", Place(graphroot=f"{folder}/graph", runroot=f"{folder}/run"), options=(), priority=())


@pytest.mark.parametrize("option", ["imagestore=/tmp", "use_composefs=true"])
def test_what_is_not_offered_yet_is_refused(overlay: Bench, option: str) -> None:
    with pytest.raises(DriverError, match="later version"):
        overlay.open([f"overlay.{option}"])


@pytest.mark.parametrize("option", ["size=1G", "inodes=100"])
def test_limits_are_refused_where_there_are_no_quotas(overlay: Bench, option: str) -> None:
    """Where there are: tests/vm/test_quotas.py."""
    with pytest.raises(DriverError, match=r"storage options? overlay\.size and overlay\.inodes") as caught:
        overlay.open([f"overlay.{option}"])
    assert "prjquota" in caught.value.hint
    key, _, value = option.partition("=")
    for writable, words in ((True, "only for overlay over xfs with 'pquota'"), (False, f"{key} is only supported for")):
        spec = LayerSpec(writable=writable, storage_options=((key, value),))
        with pytest.raises(DriverError, match=words), overlay.driver.building("new", None, spec):
            pytest.fail("it is made")
    assert not overlay.driver.exists("new")
    assert os.listdir(Path(overlay.driver.home) / "tempdirs") == []
    assert not overlay.driver.features.quota


def test_no_limits_are_no_reason_to_refuse(overlay: Bench) -> None:
    assert overlay.open(["overlay.size=0", "overlay.inodes=0"]).name == "overlay"


def test_unknown_options_are_refused(overlay: Bench) -> None:
    with pytest.raises(BadConfig, match=r'unknown option "nonsense" \("overlay.nonsense=1"\)'):
        overlay.open(["overlay.nonsense=1"])


def test_overlay_on_overlay_is_refused(overlay: Bench) -> None:
    overlay.new("base")
    with mounted(overlay, "base") as top, pytest.raises(DriverError, match="not supported over overlayfs"):
        overlay_home.backing_filesystem(mount_of(str(top)), by_program=False)


# -- lowers with other owners, left by a kill


MAPS = IdMappings(
    uids=(IdRange(container=0, host=100000, size=65536),), gids=(IdRange(container=0, host=100000, size=65536),)
)
KILLED_MAPPED = f"""
import os, signal, sys
from layerhold.drivers import overlay_mount
from layerhold.drivers.base import MountOptions
from layerhold.drivers.choose import Place, open_driver
from layerhold.ids.mappings import IdMappings, IdRange

driver = open_driver("overlay", Place(graphroot=sys.argv[1], runroot=sys.argv[2]), options=(), priority=())
overlay_mount.mount = lambda _spec: os.kill(os.getpid(), signal.SIGKILL)
driver.mount("child", MountOptions(mappings={MAPS!r}))
"""


def test_as_many_mapped_lowers_as_the_kernel_stacks(overlay: Bench) -> None:
    ids = [f"{number:064x}" for number in range(overlay_mount.MOST_LOWERS)]
    for id in ids:
        (layer(overlay, id) / "diff").mkdir(parents=True)
        (layer(overlay, id) / "diff" / id).touch()
    overlay.new("base")
    overlay.new("child", "base")
    below = layer(overlay, "child") / "lower-layers"
    below.write_text(":".join(ids))
    with mounted(overlay, "child", MountOptions(mappings=MAPS)) as top:
        assert {(path.name, path.stat().st_uid) for path in top.iterdir()} == {(id, 100000) for id in ids}
    assert [point for point in Path("/proc/self/mountinfo").read_text().split() if "/child/" in point] == []
    below.write_text(":".join([*ids, "base"]))
    with pytest.raises(DriverError, match="501 layers, and the kernel stacks 500 at most"):
        overlay.driver.mount("child", MountOptions(mappings=MAPS))
    assert [point for point in Path("/proc/self/mountinfo").read_text().split() if "/child/" in point] == []


@pytest.mark.parametrize("then", ["mount", "remove"])
def test_mapped_lowers_of_a_killed_process_are_in_nobodys_way(overlay: Bench, then: str) -> None:
    """They are on the device of the directory above them, where `os.path.ismount` does not see them."""
    overlay.new("base", None, {"file": b"1"})
    overlay.new("child", "base")
    words = [sys.executable, "-c", KILLED_MAPPED, str(overlay.graphroot), str(overlay.runroot)]
    for _ in range(2):
        assert subprocess.run(words, check=False).returncode == -9
    place = layer(overlay, "child") / "mapped"
    assert stores.mounts_below(place) == [str(place / "0")]
    if then == "mount":
        with mounted(overlay, "child", MountOptions(mappings=MAPS)) as top:
            assert (top / "file").stat().st_uid == 100000
    else:
        with overlay.driver.trash() as trash:
            overlay.driver.remove("child", trash)
        assert overlay.aside() == []
    assert stores.mounts_below(overlay.driver.home) == [overlay.driver.home]
    assert not place.exists()
