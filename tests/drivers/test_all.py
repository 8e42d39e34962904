"""What every driver does."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from layerhold.drivers.base import LayerSpec, MountOptions
from layerhold.errors import InvalidID, LayerUnknown, StorageError
from layerhold.linux import mountinfo
from layerhold.store import Store
from layerhold.tree import durable
from tests import stores
from tests.drivers.conftest import Bench, write

# An ordinary user may write into the root of his layers; root may anyway.
BASE_MODE = 0o755 if os.geteuid() else 0o555
UNSAFE = ["", ".", "..", "../x", "a/b", "/", "/etc", ".hidden", "nul\0"]


def fill(bench: Bench) -> None:
    bench.new("base", tree={"file": b"base", "directory/inner": b"inner", "gone": b"gone"})
    bench.new("child", "base")


def test_layer_has_what_was_put_into_it(bench: Bench) -> None:
    bench.new("base", tree={"a": b"1", "b/c": b"2"})
    assert bench.tree("base") == {"a": b"1", "b": None, "b/c": b"2"}
    assert bench.driver.exists("base")
    assert list(bench.driver.ids()) == ["base"]


def test_child_starts_with_its_parents_files(bench: Bench) -> None:
    fill(bench)
    assert bench.tree("child") == bench.tree("base")


def test_work_in_a_child_leaves_the_parent_alone(bench: Bench) -> None:
    fill(bench)
    before = bench.tree("base")

    def work(top: Path) -> None:
        (top / "file").write_bytes(b"changed")
        (top / "gone").unlink()
        shutil.rmtree(top / "directory")
        (top / "new").mkdir()

    bench.change("child", work)
    assert bench.tree("base") == before
    assert bench.tree("child") == {"file": b"changed", "new": None}


def test_publishing_over_a_parent_keeps_what_the_child_was_filled_with(bench: Bench) -> None:
    bench.new("base", tree={"file": b"base"})
    bench.new("child", "base", {"more": b"more"})
    bench.new("grandchild", "child", {"most": b"most"})
    assert bench.tree("grandchild") == {"file": b"base", "more": b"more", "most": b"most"}


def test_what_is_not_published_is_thrown_away(bench: Bench) -> None:
    with bench.driver.building("base", None, LayerSpec()) as build:
        write(Path(build.contents.path), {"a": b"1"})
    assert not bench.driver.exists("base")
    assert bench.aside() == []


def test_a_failure_while_filling_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError), bench.driver.building("base", None, LayerSpec()):
        raise ZeroDivisionError
    assert list(bench.driver.ids()) == []
    assert bench.aside() == []


def test_what_a_crash_left_under_the_id_goes_when_the_layer_is_published(bench: Bench) -> None:
    bench.new("base", tree={"old": b"old"})
    bench.new("base", tree={"new": b"new"})
    assert bench.tree("base") == {"new": b"new"}
    bench.driver.sweep()
    assert bench.aside() == []


def test_rebuilding_changes_the_layer_at_once(bench: Bench) -> None:
    fill(bench)
    bench.change("child", lambda top: (top / "file").write_bytes(b"child"))
    with bench.driver.rebuilding("child") as build:
        write(Path(build.contents.path), {"more": b"more"})
        assert "more" not in bench.tree("child")
        build.sync()
        build.publish()
    assert bench.tree("child") == {**bench.tree("base"), "file": b"child", "more": b"more"}
    assert bench.aside() == []


def test_rebuilding_without_publishing_changes_nothing(bench: Bench) -> None:
    fill(bench)
    before = bench.tree("child")
    with bench.driver.rebuilding("child") as build:
        write(Path(build.contents.path), {"more": b"more"})
    assert bench.tree("child") == before


def test_removed_layer_is_gone(bench: Bench) -> None:
    fill(bench)
    bench.remove("child")
    assert list(bench.driver.ids()) == ["base"]
    assert not bench.driver.exists("child")
    assert bench.aside() == []
    bench.remove("child")  # a second time is no error


def test_removing_a_mounted_layer_unmounts_it(bench: Bench) -> None:
    fill(bench)
    path = Path(bench.driver.mount("child", MountOptions()))
    (path / "file").write_bytes(b"changed")
    bench.remove("child")
    assert [point for point in stores.mounts_below(bench.driver.home) if "child" in point] == []
    assert bench.tree("base")["file"] == b"base"


def test_mounting_twice_gives_the_same_path(bench: Bench) -> None:
    fill(bench)
    path = bench.driver.mount("child", MountOptions())
    try:
        assert bench.driver.mount("child", MountOptions()) == path
        assert bench.open().mount("child", MountOptions()) == path
        assert bench.driver.is_mounted("child")
    finally:
        bench.driver.unmount("child")
    assert sum("child" in point for point in stores.mounts_below(bench.driver.home)) == 0
    bench.driver.unmount("child")  # what is not mounted is left alone


def test_owner_and_mode_of_a_layer_come_from_its_parent(bench: Bench) -> None:
    bench.new("base")
    with bench.driver.own_files("base") as own:
        assert stat.S_IMODE(os.stat(own.path).st_mode) == BASE_MODE

    def change(top: Path) -> None:
        top.chmod(0o710)
        if os.geteuid() == 0:
            os.chown(top, 12, 34)

    bench.change("base", change)
    bench.new("child", "base")
    with bench.driver.own_files("child") as own:
        info = os.stat(own.path)
    assert stat.S_IMODE(info.st_mode) == 0o710
    if os.geteuid() == 0:
        assert (info.st_uid, info.st_gid) == (12, 34)


def test_modes_do_not_depend_on_the_umask(bench: Bench) -> None:
    before = os.umask(0o077)
    try:
        fill(bench)
    finally:
        os.umask(before)
    with bench.driver.own_files("base") as own:
        assert stat.S_IMODE(os.stat(own.path).st_mode) == BASE_MODE


@pytest.mark.parametrize("id", UNSAFE)
def test_ids_that_are_no_names_are_never_acted_on(bench: Bench, id: str) -> None:
    bench.new("base", tree={"file": b"1"})
    before = sorted(str(path) for path in bench.graphroot.rglob("*"))
    assert not bench.driver.exists(id)
    bench.driver.unmount(id)
    bench.remove(id)
    with pytest.raises(InvalidID):
        bench.driver.mount(id, MountOptions())
    with pytest.raises(InvalidID):
        bench.new(id)
    assert sorted(str(path) for path in bench.graphroot.rglob("*")) == before


def test_reserved_names_are_never_acted_on(bench: Bench) -> None:
    for id in bench.driver.reserved:
        bench.remove(id)
        assert not bench.driver.exists(id)
    bench.new("base")
    assert bench.driver.exists("base")


def test_storage_options_are_refused_where_the_driver_has_none(bench: Bench) -> None:
    with pytest.raises(StorageError) as raised:
        bench.new("base", spec=LayerSpec(storage_options=(("nonsense", "1"),)))
    assert (
        str(raised.value)
        == {
            "overlay": "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            "vfs": "--storage-opt is not supported for vfs",
            "btrfs": 'unknown option "nonsense" ("nonsense=1")',
            "zfs": "Unknown option nonsense",
        }[bench.kind]
    )
    assert (list(bench.driver.ids()), bench.aside()) == ([], [])


def test_layer_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(LayerUnknown):
        bench.driver.mount("missing", MountOptions())
    with pytest.raises(LayerUnknown), bench.driver.contents("missing", against=None):
        pass
    with pytest.raises(LayerUnknown):
        bench.new("child", "missing")
    assert bench.aside() == []


KILLED = """
import os, signal, sys
from layerhold.drivers.base import LayerSpec
from layerhold.drivers.choose import Place, open_driver

# An ordinary user may write into the root of his layers; root may anyway.
BASE_MODE = 0o755 if os.geteuid() else 0o555
kind, graphroot, runroot, *options = sys.argv[1:]
driver = open_driver(kind, Place(graphroot=graphroot, runroot=runroot), options=options, priority=())
with driver.building("half", None, LayerSpec()) as build:
    with open(build.contents.path + "/file", "w") as file:
        file.write("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept(bench: Bench) -> None:
    words = [sys.executable, "-c", KILLED, bench.kind, str(bench.graphroot), str(bench.runroot), *bench.options]
    assert subprocess.run(words, check=False).returncode == -9
    assert len(bench.aside()) == 2
    bench.driver.sweep()
    assert bench.aside() == []
    assert list(bench.driver.ids()) == []


def test_sweeping_leaves_alone_what_others_work_on(bench: Bench) -> None:
    with bench.driver.building("base", None, LayerSpec()) as build:
        bench.open().sweep()
        write(Path(build.contents.path), {"a": b"1"})
        build.publish()
    assert bench.tree("base") == {"a": b"1"}


def test_shutting_down_leaves_no_mount(bench: Bench) -> None:
    bench.new("base")
    bench.driver.shutdown()
    assert bench.driver.home not in stores.mounts_below(bench.driver.home)
    bench.driver = bench.open()
    assert bench.tree("base") == {}


@pytest.mark.parametrize("id", ["", ".", "..", "l", "../images", "tempdirs"])
def test_a_damaged_record_does_not_make_the_store_remove_anything(bench: Bench, id: str) -> None:
    """Go's programs remove the files of incomplete layers under whatever ID the record has."""

    def opened() -> Store:
        options = list(bench.options)
        return Store.open(graphroot=bench.graphroot, runroot=bench.runroot, driver=bench.kind, options=options)

    opened().layers.create(id="good")
    records = bench.graphroot / f"{bench.kind}-layers/layers.json"
    damaged = {"id": id, "created": "2024-01-01T00:00:00Z", "flags": {"incomplete": True}}
    records.write_text(json.dumps([*json.loads(records.read_text()), damaged]))
    (bench.graphroot / "images").mkdir()
    before = {str(path) for path in bench.graphroot.rglob("*")}
    opened().layers.create(id="other")
    assert before <= {str(path) for path in bench.graphroot.rglob("*")}
    assert sorted(layer.id for layer in opened().layers) == ["good", "other"]


@pytest.mark.parametrize(("filesystem", "synced"), [("xfs", False), ("btrfs", True), ("", True)])
def test_the_move_is_synced_where_later_syncs_do_not_cover_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, filesystem: str, synced: bool
) -> None:
    calls: list[bool] = []

    def record(directory: str) -> None:
        calls.append(bench.driver.exists("base"))
        assert os.path.isdir(directory)

    monkeypatch.setattr(mountinfo, "filesystem_of", lambda _path: filesystem)
    monkeypatch.setattr(durable, "_known", {})
    monkeypatch.setattr(durable, "sync_tree", record)
    with bench.driver.building("base", None, LayerSpec()) as build:
        build.publish()
    synced = synced and bench.kind != "zfs"  # where the new name is on the disk at once
    assert calls == [True] * synced
    with bench.driver.rebuilding("base") as build:
        build.publish()
    assert calls == [True] * synced * 2
