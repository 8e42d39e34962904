"""Checks and repairs through the library: what is found, what goes, and what must stay."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layerhold import Store, damage, layer_checking
from layerhold.damage import Problem, Report
from layerhold.repair import Removal
from layerhold.tree.files import remove_tree
from layerhold.tree.root import Root
from tests.compat.test_commands import tar

BASE, TOP, IMAGE, BOX = (character * 64 for character in "12ad")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(
        graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="vfs", options=["ignore_chown_errors=true"]
    ) as opened:
        base = tar(("etc", None, 0o755), ("etc/conf", b"hello", 0o644))
        opened.layers.create(id=BASE, diff=io.BytesIO(base))
        opened.layers.create(BASE, id=TOP, diff=io.BytesIO(tar(("etc", None, 0o755), ("etc/more", b"x", 0o644))))
        opened.images.create(id=IMAGE, layer=TOP, data={"manifest": b"{}"})
        yield opened
    remove_tree(str(tmp_path / "root"))


def file(store: Store, id: str, name: str) -> Path:
    return Path(store.driver.path(id), name)


def kinds(problems: list[Problem]) -> set[str]:
    return {problem.kind for problem in problems}


def change_layers(store: Store, change: Callable[[list[dict[str, Any]]], object]) -> None:
    path = Path(store.config.graphroot, "vfs-layers/layers.json")
    records = json.loads(path.read_bytes())
    change(records)
    path.write_text(json.dumps(records))


# --- checking


def test_nothing_wrong(store: Store) -> None:
    report = store.check()
    assert report.ok
    assert report.made["image", IMAGE] == store.images[IMAGE].created


def test_changed_content_and_what_is_left_out(store: Store) -> None:
    path = file(store, BASE, "etc/conf")
    before = path.stat()
    path.write_bytes(b"HELLO")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    report = store.check()
    assert kinds(report.layers[BASE]) == {damage.CONTENT}
    assert report.images == {IMAGE: report.layers[BASE]}
    assert TOP not in report.layers
    assert store.check(layer_digests=False).ok


def test_changed_modes_are_found_only_if_wanted(store: Store) -> None:
    file(store, TOP, "etc/more").chmod(0o600)
    assert kinds(store.check().layers[TOP]) == {damage.MODIFIED}
    assert store.check(layer_contents=False).ok
    assert store.check(mountable=False).ok


def test_big_data_is_checked_only_if_wanted(store: Store) -> None:
    Path(store.images.directory, IMAGE, "manifest").unlink()
    assert kinds(store.check().images[IMAGE]) == {damage.DATA}
    assert store.check(image_data=False).ok


def test_unneeded_layers_have_time(store: Store) -> None:
    layer = store.layers.create()
    assert store.check().ok
    assert kinds(store.check(unreferenced_for=-1).layers[layer.id]) == {damage.UNREFERENCED}


def test_parents_in_a_circle_end_the_check_all_the_same(store: Store) -> None:
    change_layers(store, lambda records: records[0].update(parent=TOP))
    report = store.check()
    assert kinds(report.layers[BASE]) == {damage.MISSING}
    assert IMAGE in report.images


def test_a_mistake_of_the_machine_is_no_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_root: Root, _path: bytes) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Root, "open_file", fail)
    with pytest.raises(OSError, match="Too many open files"):
        store.check()


def test_a_layer_that_goes_meanwhile_is_passed_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = layer_checking.LayerCheck._visit

    def delete_first(contents: Any, layer: Any) -> Any:
        if IMAGE in store.images:
            store.images[IMAGE].delete()
        return visit(contents, layer)

    monkeypatch.setattr(layer_checking.LayerCheck, "_visit", delete_first)
    assert store.check().ok


# --- repairing


def test_a_damaged_image_goes_with_its_layers(store: Store) -> None:
    file(store, BASE, "etc/conf").unlink()
    report = store.check()
    wanted = [Removal(kind="image", id=IMAGE), Removal(kind="layer", id=TOP), Removal(kind="layer", id=BASE)]
    assert store.repair(report, dry_run=True) == wanted
    assert IMAGE in store.images
    assert store.repair(report) == wanted
    assert not list(store.images)
    assert not list(store.layers)
    assert store.check().ok


def test_containers_go_only_if_that_is_wanted(store: Store) -> None:
    store.containers.create(id=BOX, image=IMAGE)
    Path(store.images.directory, IMAGE, "manifest").unlink()
    report = store.check()
    (kept,) = store.repair(report)
    assert kept.error == f"deleting image {IMAGE}: image used by {BOX}: image is in use by a container"
    assert [removal.kind for removal in store.repair(report, containers=True)] == ["container", "image"] + 2 * ["layer"]
    assert not list(store.containers)
    assert not list(store.images)


def test_what_was_made_anew_since_the_check_stays(store: Store) -> None:
    Path(store.images.directory, IMAGE, "manifest").unlink()
    report = store.check()
    store.images[IMAGE].delete(with_layers=False)
    store.images.create(id=IMAGE, layer=TOP)
    assert store.repair(report) == []
    assert IMAGE in store.images


def test_files_that_a_record_names_stay(store: Store) -> None:
    change_layers(store, lambda records: records.pop(0))
    report = store.check()
    assert kinds(report.layers[BASE]) == {damage.UNACCOUNTED}
    removals = store.repair(report, dry_run=True)
    assert [removal.kind for removal in removals] == ["image", "layer", "files"]
    store.containers.create(id=BOX, image=IMAGE)
    store.repair(report)
    assert file(store, BASE, "etc/conf").exists()


def test_files_that_no_record_knows_go(store: Store) -> None:
    shutil.copytree(store.driver.path(BASE), file(store, "stray", ""))
    assert store.repair(store.check()) == [Removal(kind="files", id="stray")]
    assert not store.driver.exists("stray")
    assert store.check().ok


def test_a_refused_mount_is_no_reason_to_remove_anything(store: Store) -> None:
    report = store.check()
    problem = Problem(sentence=f"layer {TOP}: mount: operation not permitted", kind=damage.MOUNT)
    report.layers[TOP] = report.images[IMAGE] = [problem]
    assert all(removal.error for removal in store.repair(report))
    assert IMAGE in store.images


def test_read_only_stores_are_not_repaired(store: Store) -> None:
    report = Report()
    report.read_only_images[IMAGE] = [Problem(sentence="", kind=damage.DATA)]
    assert store.repair(report, containers=True) == []
