"""The overlay driver with a mount program, fuse-overlayfs: what it does otherwise than by the kernel."""

from __future__ import annotations

import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from layerhold.config import Config
from layerhold.convert import convert
from layerhold.drivers.base import FUSE_MARKS, OVERLAY_MARKS, LayerSpec, MountOptions
from layerhold.errors import DriverError
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.layers import Layer
from layerhold.linux import mountinfo
from layerhold.store import Store
from tests import fuse, stores
from tests.drivers.conftest import Bench

pytestmark = pytest.mark.root

FUSE = "fuse.fuse-overlayfs"
MAPS = IdMappings(
    uids=(IdRange(container=0, host=100000, size=65536),), gids=(IdRange(container=0, host=100000, size=65536),)
)


def noted(bench: Bench) -> str:
    return (Path(bench.driver.home) / ".has-mount-program").read_text()


def kind(path: Path | str) -> str:
    return mountinfo.filesystem_of(str(path))


@contextmanager
def mounted(bench: Bench, id: str, options: MountOptions | None = None) -> Iterator[Path]:
    path = Path(bench.driver.mount(id, options or MountOptions()))
    try:
        yield path
    finally:
        bench.driver.unmount(id)


def test_the_program_mounts(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    by_program.new("child", "base")
    with mounted(by_program, "child") as top:
        assert kind(top) == FUSE
        assert by_program.driver.is_mounted("child")
        (top / "new").write_bytes(b"2")
    assert not by_program.driver.is_mounted("child")
    assert by_program.tree("child") == {"file": b"1", "new": b"2"}


def test_nothing_is_asked_of_the_kernel(by_program: Bench) -> None:
    assert not (by_program.runroot / "overlay").exists()
    assert dict(by_program.driver.describe()) == {
        "Backing Filesystem": dict(by_program.driver.describe())["Backing Filesystem"],
        "Supports d_type": "true",
        "Native Overlay Diff": "false",
        "Using metacopy": "false",
        "Supports shifting": "true",
        "Supports volatile": "true",
    }


def test_the_home_is_noted(by_program: Bench, overlay: Bench) -> None:
    assert noted(by_program) == "true"
    assert noted(overlay) == "false"
    overlay.open([fuse.option()])
    assert noted(overlay) == "true"
    overlay.open()
    assert noted(overlay) == "true"


def test_a_home_without_a_note_is_looked_through(overlay: Bench) -> None:
    overlay.new("base", tree={"d/file": b"1"})
    note = Path(overlay.driver.home) / ".has-mount-program"
    note.unlink()
    overlay.open()
    assert noted(overlay) == "false"
    note.unlink()
    (Path(overlay.driver.home) / "base/diff/d/.wh.gone").touch()
    overlay.driver = overlay.open()
    assert noted(overlay) == "true"
    assert overlay.tree("base") == {"d": None, "d/file": b"1"}


def test_deletions_in_a_mount_are_read(by_program: Bench) -> None:
    by_program.new("base", tree={"a": b"1", "d/x": b"2", "d/y": b"3", "e/z": b"4"})
    by_program.new("child", "base")

    def work(top: Path) -> None:
        (top / "a").unlink()
        (top / "d/x").unlink()
        shutil.rmtree(top / "e")
        (top / "e").mkdir()

    by_program.change("child", work)
    for driver in (by_program.driver, by_program.open()):
        by_program.driver = driver
        assert by_program.tree("child") == {"d": None, "d/y": b"3", "e": None}
    with by_program.driver.contents("child", against="base") as contents:
        assert (contents.united, contents.deletions) == (True, FUSE_MARKS)


def test_a_home_that_a_program_wrote_is_read_and_mounted_without_the_option(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    by_program.new("child", "base", {".wh.file": b""})
    by_program.options = ()
    by_program.driver = by_program.open()
    assert by_program.tree("child") == {}
    with mounted(by_program, "child") as top:
        assert kind(top) == FUSE
        assert os.listdir(top) == []


def test_without_the_program_such_a_home_is_read_and_not_mounted(
    by_program: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    by_program.new("base", tree={"file": b"1"})
    by_program.options = ()
    driver = by_program.driver = by_program.open()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert by_program.tree("base") == {"file": b"1"}
    by_program.new("child", "base", {"more": b"2"})
    assert by_program.tree("child") == {"file": b"1", "more": b"2"}
    with pytest.raises(DriverError, match="install fuse-overlayfs"):
        driver.mount("child", MountOptions())
    by_program.remove("child")


def test_layers_made_before_by_the_kernel_are_read(overlay: Bench) -> None:
    overlay.new("base", tree={"a": b"1", "b": b"2"})
    overlay.new("child", "base")
    overlay.change("child", lambda top: (top / "a").unlink())
    with overlay.driver.contents("child", against="base") as contents:
        assert contents.deletions == OVERLAY_MARKS
    overlay.driver = overlay.open([fuse.option()])
    assert overlay.tree("child") == {"b": b"2"}
    with mounted(overlay, "child") as top:
        assert os.listdir(top) == ["b"]


def test_whiteouts_of_a_tar_become_files_that_the_program_understands(by_program: Bench) -> None:
    store = opened(by_program)
    base = store.layers.create(diff=tar("gone", "d/x", "o/x", "both"), id="base")
    top = store.layers.create(base, diff=tar(".wh.gone", "o/.wh..wh..opq", "o/y", ".wh.both", "both"), id="top")
    assert (Path(by_program.driver.home) / "top/diff/.wh.gone").is_file()
    with top.mount() as path:
        assert sorted(str(found.relative_to(path)) for found in path.rglob("*")) == ["both", "d", "d/x", "o", "o/y"]
    changes = [(os.fsdecode(change.path), "MAD"[change.kind]) for change in top.changes()]
    assert changes == [("/both", "M"), ("/gone", "D"), ("/o", "M"), ("/o/x", "D"), ("/o/y", "A")]
    assert ".wh.gone" in members(top)


def opened(bench: Bench) -> Store:
    return Store.open(graphroot=bench.graphroot, runroot=bench.runroot, driver="overlay", options=bench.options)


def tar(*names: str) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = 1, len(names), 0o755
            if name.endswith("/"):
                info.type, info.size = tarfile.DIRTYPE, 0
            archive.addfile(info, io.BytesIO(b"x"))
    stream.seek(0)
    return stream


def members(layer: Layer) -> dict[str, tarfile.TarInfo]:
    with layer.diff() as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as archive:
        return {member.name: member for member in archive.getmembers()}


def test_changes_that_are_not_written_yet_are_read_in_the_mount(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    by_program.new("child", "base")
    with mounted(by_program, "child") as top:
        (top / "file").write_bytes(b"more")
        with by_program.driver.contents("child", against="base") as contents:
            assert (contents.path, contents.lowers) == (str(top), None)
        assert by_program.tree("child") == {"file": b"more"}


def test_owners_are_mapped_for_the_whole_mount(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    by_program.new("child", "base")
    with mounted(by_program, "child", MountOptions(mappings=MAPS)) as top:
        assert (top.stat().st_uid, (top / "file").stat().st_uid) == (100000, 100000)
        (top / "new").touch()
        os.chown(top / "new", 100007, 100008)
    assert (Path(by_program.driver.home) / "child/diff/new").stat().st_uid == 7
    with by_program.driver.contents("child", against="base", mappings=MAPS) as contents:
        assert kind(os.path.realpath(contents.path)) != FUSE  # it has no name
        assert os.stat(f"{contents.path}/new").st_gid == 100008
    assert by_program.aside() == []


def test_one_owner_for_all(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    by_program.new("child", "base")
    one = (IdRange(container=0, host=5, size=1),)
    with mounted(by_program, "child", MountOptions(mappings=IdMappings(uids=one, gids=one))) as top:
        assert (top / "file").stat().st_uid == 5


def test_a_container_with_maps(by_program: Bench) -> None:
    store = opened(by_program)
    layer = store.layers.create(diff=tar("file"))
    image = store.images.create(layer=layer)
    box = store.containers.create(image=image, mappings=MAPS)
    with box.layer.mount() as top:
        assert (top / "file").stat().st_uid == 100000
        (top / "new").touch()
        os.chown(top / "new", 100007, 100007)
        inside = [(os.fsdecode(change.path), change.kind) for change in box.layer.changes()]
        assert inside == [("/new", 1)]
    assert [(os.fsdecode(change.path), change.kind) for change in box.layer.changes()] == [("/new", 1)]
    assert {name: member.uid for name, member in members(box.layer).items()} == {"new": 7}


def test_copies_with_other_owners(by_program: Bench) -> None:
    """Where mounts are not to map owners."""
    config = Config(
        graphroot=str(by_program.graphroot),
        runroot=str(by_program.runroot),
        driver="overlay",
        options=tuple(by_program.options),
        idmapped_mounts=False,
    )
    store = Store.open(config)
    base = store.layers.create(diff=tar("gone", "o/", "o/x"))
    image = store.images.create(layer=store.layers.create(base, diff=tar(".wh.gone", "o/y")))
    plan = store.containers.plan(image=image, mappings=MAPS)
    assert (plan.way, plan.files, plan.bytes) == ("copy", 3, 2)
    box = store.containers.create(image=image, mappings=MAPS)
    with box.layer.mount() as top:
        assert (top / "o/x").stat().st_uid == 100000
        (top / "o/x").unlink()
        (top / "new").touch()
    assert [(os.fsdecode(change.path), "MAD"[change.kind]) for change in box.layer.changes()] == [
        ("/new", "A"), ("/o", "M"), ("/o/x", "D"),
    ]  # fmt: skip


def test_what_is_brought_into_a_container_with_maps(by_program: Bench) -> None:
    store = opened(by_program)
    image = store.images.create(layer=store.layers.create(diff=tar("file")))
    box = store.containers.create(image=image, mappings=MAPS)
    box.layer.apply(tar("more"))
    assert (Path(by_program.driver.home) / box.layer_id / "diff/more").stat().st_uid == 0
    assert box.layer.record.mappings == MAPS
    with box.layer.mount() as top:
        assert (top / "more").stat().st_uid == 100000
    assert members(box.layer)["more"].uid == 0


def test_converting_from_and_to_such_a_store(by_program: Bench) -> None:
    store = opened(by_program)
    base = store.layers.create(diff=tar("gone", "o/", "o/x"))
    image = store.images.create(layer=store.layers.create(base, diff=tar(".wh.gone", "o/", "o/.wh..wh..opq", "o/y")))
    box = store.containers.create(image=image, mappings=MAPS)
    with box.layer.mount() as top:
        (top / "new").touch()
        os.chown(top / "new", 100007, 100008)
    before = [(change.path, change.kind) for change in box.layer.changes()]
    folder = by_program.graphroot.parent
    convert(by_program.graphroot, "overlay", into=folder / "by-kernel")
    convert(folder / "by-kernel", "overlay", into=folder / "by-program", options=by_program.options)
    convert(folder / "by-program", "vfs", into=folder / "vfs")
    for name, driver, options in (("by-kernel", "overlay", []), ("by-program", "overlay", by_program.options)):
        again = Store.open(graphroot=folder / name, runroot=folder / "run", driver=driver, options=options)
        with again.containers[box.id].layer.mount() as top:
            assert (kind(top) == FUSE) == bool(options)
            assert sorted(str(found.relative_to(top)) for found in top.rglob("*")) == ["new", "o", "o/y"]
            assert (top.stat().st_uid, (top / "new").stat().st_gid) == (100000, 100008)
        assert [(change.path, change.kind) for change in again.containers[box.id].layer.changes()] == before
        again.shutdown(force=True)
    assert (folder / "vfs/vfs/dir" / box.layer_id / "new").stat().st_gid == 100008


def test_read_only(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    with (
        mounted(by_program, "base", MountOptions(read_only=True)) as top,
        pytest.raises(OSError, match="Read-only file system"),
    ):
        (top / "new").touch()


def test_a_volatile_mount(by_program: Bench) -> None:
    by_program.new("base")
    for _ in range(2):
        with mounted(by_program, "base", MountOptions(volatile=True)) as top:
            (top / "new").write_bytes(b"1")
    assert by_program.tree("base") == {"new": b"1"}


def test_a_deep_chain(by_program: Bench) -> None:
    """Longer than the option string of a mount by the kernel may be."""
    above = None
    for number in range(60):
        by_program.new(id := f"{number:064x}", above, {f"file{number}": b"1"})
        above = id
    with mounted(by_program, str(above)) as top:
        assert len(os.listdir(top)) == 60


def test_a_mount_in_use_goes_when_it_is_closed(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    top = Path(by_program.driver.mount("base", MountOptions()))
    with (top / "file").open("rb") as file:
        by_program.driver.unmount("base")
        assert not by_program.driver.is_mounted("base")
        assert file.read() == b"1"


def test_a_mount_whose_program_was_killed_is_made_again(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    top = Path(by_program.driver.mount("base", MountOptions()))
    kill_program_of(top)
    assert by_program.driver.is_mounted("base")
    assert by_program.driver.mount("base", MountOptions()) == str(top)
    assert (top / "file").read_bytes() == b"1"
    kill_program_of(top)
    by_program.driver.unmount("base")
    assert not by_program.driver.is_mounted("base")
    assert os.listdir(top) == []


def kill_program_of(top: Path) -> None:
    """Kill the process that serves the mount on `top`: the one that was told so."""
    for process in Path("/proc").glob("[0-9]*"):
        words: list[bytes] = []
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            words = (process / "cmdline").read_bytes().split(b"\0")
        if os.fsencode(top) in words and b"fuse-overlayfs" in words[0]:
            os.kill(int(process.name), signal.SIGKILL)
    for _ in range(200):
        try:
            os.statvfs(top)
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"nobody serves {top}")


def test_what_the_program_says_is_the_error(by_program: Bench, tmp_path: Path) -> None:
    by_program.new("base")
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho nothing works >&2\nexit 1\n")
    program.chmod(0o755)
    by_program.options = [f"overlay.mount_program={program}"]
    with pytest.raises(DriverError, match=f"using mount program {program}: nothing works\n: exit status 1"):
        by_program.open().mount("base", MountOptions())


def test_a_home_on_an_overlay(overlay: Bench) -> None:
    """Where the kernel refuses."""
    overlay.new("base")
    with mounted(overlay, "base") as top:
        inner = Bench(top, "overlay", [fuse.option()])
        inner.new("base", tree={"a": b"1"})
        inner.new("child", "base")
        inner.change("child", lambda path: (path / "a").unlink())
        assert inner.tree("child") == {}
        inner.driver.shutdown()


KILLED = """
import os, signal, sys
from layerhold.drivers import overlay_program
from layerhold.drivers.choose import Place, open_driver
from layerhold.ids.mappings import IdMappings, IdRange
graphroot, runroot, option = sys.argv[1:]
driver = open_driver("overlay", Place(graphroot=graphroot, runroot=runroot), options=(option,), priority=())
real = overlay_program.mount
def kill(call):
    real(call)
    os.kill(os.getpid(), signal.SIGKILL)
overlay_program.mount = kill
one = (IdRange(container=0, host=5, size=1),)
with driver.contents("child", against=None, mappings=IdMappings(uids=one, gids=one)):
    pass
"""


def test_a_mount_that_a_killed_process_left_aside_is_undone(by_program: Bench) -> None:
    by_program.new("base", tree={"file": b"1"})
    by_program.new("child", "base")
    words = [sys.executable, "-c", KILLED, str(by_program.graphroot), str(by_program.runroot), fuse.option()]
    assert subprocess.run(words, check=False).returncode == -9
    assert any("view" in point for point in stores.mounts_below(by_program.driver.home))
    by_program.driver.sweep()
    assert not any("tempdirs" in point for point in stores.mounts_below(by_program.driver.home))
    assert by_program.aside() == []


# -- all files with one mode


@pytest.fixture
def masked(by_program: Bench) -> Bench:
    by_program.options = [*by_program.options, "overlay.force_mask=0750"]
    by_program.driver = by_program.open()
    return by_program


def test_a_mask_needs_a_program_where_containers_write(overlay: Bench) -> None:
    driver = overlay.open(["overlay.force_mask=shared"])
    with pytest.raises(DriverError, match="force_mask option for writeable layers is only supported"):
        driver.building("a", None, LayerSpec()).__enter__()
    with driver.building("a", None, LayerSpec(writable=False)) as build:
        build.publish()
    assert stat.S_IMODE((Path(driver.home) / "a/diff").stat().st_mode) == 0o755


def test_files_have_the_mask_and_show_what_they_are(masked: Bench) -> None:
    store = opened(masked)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, type_, mode, owner in (
            ("d", tarfile.DIRTYPE, 0o700, 7),
            ("d/file", tarfile.REGTYPE, 0o4755, 8),
            ("pipe", tarfile.FIFOTYPE, 0o640, 9),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = type_, mode, owner, owner
            archive.addfile(entry)
    data = stream.getvalue()
    layer = store.layers.create(diff=io.BytesIO(data), id="base")
    diff = Path(masked.driver.home) / "base/diff"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (diff, *diff.rglob("*"))} == {0o750}
    top = store.layers.create(layer, id="top")
    with top.mount() as path:
        info = (path / "d/file").stat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (8, 8, 0o4755)
        (path / "new").touch()
        (path / "new").chmod(0o600)
        os.chown(path / "new", 5, 6)  # last: fuse-overlayfs 1.10 loses the owner when it changes the mode
        (path / "pipe").unlink()
    assert stat.S_IMODE((Path(masked.driver.home) / "top/diff").stat().st_mode) == 0o750
    for again in (store, Store.open(graphroot=masked.graphroot, runroot=masked.runroot, driver="overlay")):
        found = members(again.layers["top"])
        assert sorted(found) == [".wh.pipe", "new"]
        assert (found["new"].uid, found["new"].gid, found["new"].mode) == (5, 6, 0o600)
        assert {os.fsdecode(change.path) for change in again.layers["base"].changes()} == {"/d", "/d/file", "/pipe"}
        with again.layers["base"].diff() as tar_stream:
            assert tar_stream.read() == data
