"""The aufs driver: a store that it left is read without a mount, and not changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerhold.archive.changes import walk
from layerhold.archive.united import opened
from layerhold.comparing import tree_of
from layerhold.copying import Place, copy
from layerhold.drivers.base import AUFS_MARKS
from layerhold.errors import DriverError, DriverNotSupported, DriverReadOnly
from layerhold.store import Store
from tests import aufs_store
from tests.aufs_store import BASE, DIFFS, IMAGE, MIDDLE, SEEN, TOP


@pytest.fixture
def graphroot(tmp_path: Path) -> Path:
    aufs_store.make(tmp_path / "root", tmp_path / "run")
    return tmp_path / "root"


@pytest.fixture
def store(graphroot: Path) -> Iterator[Store]:
    with opened_at(graphroot) as store:
        yield store


def opened_at(graphroot: Path) -> Store:
    return Store.open(graphroot=graphroot, runroot=graphroot.parent / "run")


def files(graphroot: Path) -> list[tuple[str, int, int]]:
    """All that is in a store but for its lock files: names, sizes, times."""
    found = []
    for directory, _, names in os.walk(graphroot):
        for name in (".", *names):
            info = os.lstat(path := os.path.join(directory, name))
            if not name.endswith(".lock"):
                found.append((path, info.st_size, info.st_mtime_ns))
    return sorted(found)


def test_a_store_of_aufs_is_found_and_listed(store: Store) -> None:
    assert store.driver.name == "aufs"
    box = store.containers["box"]
    assert [layer.id for layer in store.layers] == [BASE, MIDDLE, box.layer_id]
    assert [image.id for image in store.images] == [IMAGE]
    assert sorted(store.driver.ids()) == sorted([BASE, MIDDLE, box.layer_id])
    assert ("Dirs", "3") in store.status()
    assert box.data["key"] == b"value"


def test_whole_trees_are_what_the_mount_would_have_shown(store: Store) -> None:
    for id in (BASE, MIDDLE, TOP):
        layer = store.containers["box"].layer_id if id == TOP else id
        with store.driver.contents(layer, against=None) as contents, opened(tree_of(contents)) as tree:
            found = {os.fsdecode(path) for path, is_directory, _ in walk(tree) if not is_directory}
        assert found == SEEN[id]


@pytest.mark.parametrize("id", [BASE, MIDDLE])
def test_what_came_in_comes_out_byte_for_byte(store: Store, id: str) -> None:
    with store.layers[id].diff() as tar:
        assert hashlib.sha256(tar.read()).digest() == hashlib.sha256(DIFFS[id]).digest()


def test_changes_of_a_layer_that_came_in(store: Store) -> None:
    found = [(os.fsdecode(change.path), "MAD"[change.kind]) for change in store.layers[MIDDLE].changes()]
    assert found == [
        ("/etc", "M"), ("/etc/gone", "D"), ("/etc/conf", "M"), ("/opt", "D"), ("/opt/new", "A"),
        ("/was-dir", "M"), ("/was-file", "D"), ("/was-file/in", "A"),
    ]  # fmt: skip


def test_diff_of_what_a_container_wrote_has_none_of_the_kernels_own_names(store: Store) -> None:
    layer = store.containers["box"].layer
    with layer.diff() as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        names = [member.name for member in archive]
    assert names == [
        ".wh.tmp", "etc", "etc/.wh.kept", "etc/conf", "opt", "opt/.wh..wh..opq", "opt/newer", "run",
        "usr", "usr/bin", "usr/bin/four", "usr/bin/three",
    ]  # fmt: skip
    assert layer.diff_size() == len(b"third") + len(b"newer") + len(b"#!three")


def test_layers_are_compared_with_any_other(store: Store) -> None:
    top = store.containers["box"].layer
    found = {(os.fsdecode(change.path), "MAD"[change.kind]) for change in top.changes(BASE)}
    assert {("/etc/gone", "D"), ("/etc/kept", "D"), ("/opt/deep", "D"), ("/opt/newer", "A"), ("/tmp", "D")} <= found
    assert ("/opt/new", "A") not in found
    with top.diff(BASE) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        assert {"etc/.wh.gone", "opt/.wh.deep", "usr/bin/three"} <= {member.name for member in archive}


def test_nothing_is_wrong_with_it(store: Store) -> None:
    report = store.check()
    assert report.ok, vars(report)


def test_damage_is_found(graphroot: Path) -> None:
    (graphroot / "aufs/diff" / MIDDLE / "opt/new").write_bytes(b"bad")
    (graphroot / "aufs/diff" / BASE / "etc/more").touch()
    report = opened_at(graphroot).check()
    assert "incorrect digest" in str(report.layers[MIDDLE]) or "checksum failed" in str(report.layers[MIDDLE])
    assert "etc/more" in str(report.layers[BASE])


def test_opening_and_reading_write_nothing(graphroot: Path) -> None:
    before = files(graphroot)
    store = opened_at(graphroot)
    store.check()
    store.containers["box"].layer.changes(BASE)
    assert files(graphroot) == before


@pytest.mark.parametrize(
    "work",
    [
        lambda store: store.layers.create(BASE),
        lambda store: store.layers.create(diff=io.BytesIO(DIFFS[BASE])),
        lambda store: store.layers.copy(MIDDLE),
        lambda store: store.layers[MIDDLE].apply(io.BytesIO(DIFFS[BASE])),
        lambda store: store.layers[MIDDLE].delete(),
        lambda store: store.containers.create(image=IMAGE),
        lambda store: store.mount("box"),
        lambda store: store.delete("box"),
        lambda store: store.images[IMAGE].delete(),
        lambda store: store.collect_garbage(),
        lambda store: store.wipe(),
    ],
)
def test_what_would_change_files_is_refused_with_the_way_out(graphroot: Path, work: Callable[[Store], object]) -> None:
    before = files(graphroot)
    store = opened_at(graphroot)
    with pytest.raises(DriverReadOnly, match=f"layerhold convert {graphroot} --to overlay"):
        work(store)
    assert [row for row in files(graphroot) if "aufs-layers" not in row[0]] == [
        row for row in before if "aufs-layers" not in row[0]
    ]
    assert len(list(opened_at(graphroot).layers)) == 3


def test_records_can_be_changed(store: Store) -> None:
    store.layers[BASE].add_names(["more"])
    assert store.layers["more"].id == BASE


def test_files_are_copied_out_of_a_layer(store: Store, tmp_path: Path) -> None:
    box, out = store.containers["box"].layer, tmp_path / "out"
    copy([Place(path="/etc/conf", layer=box)], Place(path=f"{out}/conf"))
    copy([Place(path="/bin/one", layer=box)], Place(path=f"{out}/one"))
    assert (out / "conf").read_bytes() == b"third"
    assert (out / "one").read_bytes() == b"#!one"
    copy([Place(path="/usr", layer=box)], Place(path=f"{out}/usr"))
    assert sorted(os.listdir(out / "usr/bin")) == ["four", "one", "three", "two"]
    assert (out / "usr/bin/one").stat().st_ino == (out / "usr/bin/two").stat().st_ino
    copy([Place(path="/", layer=box)], Place(path=f"{out}/all"))
    assert {str(path.relative_to(out / "all")) for path in (out / "all").rglob("*") if not path.is_dir()} == SEEN[
        TOP
    ] - {"bin"}
    assert (out / "all/bin").readlink() == Path("usr/bin")
    copy([Place(path="/bin", layer=box)], Place(path=f"{out}/links"))
    assert (out / "links/bin").is_symlink()


@pytest.mark.parametrize("path", ["/etc/gone", "/etc/kept", "/nowhere/at/all", "/etc/conf/below"])
def test_what_is_not_there_is_not_copied(store: Store, tmp_path: Path, path: str) -> None:
    with pytest.raises(OSError, match=f"stat: No such file or directory: '{path}'"):
        copy([Place(path=path, layer=store.containers["box"].layer)], Place(path=f"{tmp_path}/out"))


def test_nothing_is_copied_into_a_layer(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DriverReadOnly):
        copy([Place(path=f"{tmp_path}/file")], Place(path="/file", layer=store.layers[BASE]))


def test_what_go_left_half_made_is_not_shown(graphroot: Path) -> None:
    path = graphroot / "aufs-layers/layers.json"
    records = json.loads(path.read_text())
    records[0]["flags"] = {"incomplete": True}
    path.write_text(json.dumps(records))
    store = opened_at(graphroot)
    assert BASE not in [layer.id for layer in store.layers]
    assert MIDDLE in store.layers
    assert store.driver.exists(BASE)


def test_a_store_of_aufs_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(DriverNotSupported, match="failed to GetDriver graph aufs"):
        Store.open(graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="aufs")
    assert not (tmp_path / "root/aufs").exists()


def test_what_aufs_was_about_to_remove_is_no_layer(graphroot: Path) -> None:
    (graphroot / "aufs/diff" / f"{'9' * 64}-removing").mkdir()
    assert len(list(opened_at(graphroot).driver.ids())) == 3


@pytest.mark.parametrize("missing", ["layers", "diff"])
def test_a_layer_whose_parts_are_missing_is_named(graphroot: Path, missing: str) -> None:
    store = opened_at(graphroot)
    (graphroot / "aufs" / missing / (MIDDLE if missing == "layers" else BASE)).rename(graphroot / "elsewhere")
    with pytest.raises(DriverError, match=MIDDLE):
        store.layers[MIDDLE].changes()


def test_own_files_are_those_of_the_layer(store: Store) -> None:
    with store.driver.own_files(MIDDLE) as contents:
        assert contents.deletions == AUFS_MARKS
        assert (Path(contents.path) / "etc/.wh.gone").exists()
