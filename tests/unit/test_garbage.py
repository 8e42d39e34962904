"""Files that no record has: what is found and removed, and what is let alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold import Store
from layerhold.drivers.base import LayerSpec
from layerhold.garbage import Garbage
from layerhold.tree.files import remove_tree

STRAY = "f" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="vfs") as opened:
        layer = opened.layers.create(id="1" * 64)
        opened.layers.create(layer, id="2" * 64)
        opened.images.create(id="a" * 64, layer=layer, data={"manifest": b"{}"})
        opened.containers.create(id="d" * 64, image="a" * 64, data={"key": b"data"})
        yield opened
    remove_tree(str(tmp_path / "root"))


def stray(store: Store, *names: str) -> list[Path]:
    """Make files and directories (that end in a slash) below the graph root."""
    made = []
    for name in names:
        path = Path(store.config.graphroot, name)
        if name.endswith("/"):
            path.mkdir(parents=True)
            (path / "file").touch()
        else:
            path.touch()
        made.append(path)
    return made


def records(store: Store) -> dict[str, bytes]:
    root = Path(store.config.graphroot)
    return {str(file): file.read_bytes() for file in root.glob("vfs-*/*.json")}


def test_everything_without_a_record_goes(store: Store) -> None:
    names = [f"vfs/dir/{STRAY}/", "vfs/dir/any-name/", f"vfs-layers/{STRAY}/", f"vfs-layers/{STRAY}.tar-split.gz"]
    made = stray(store, *names, f"vfs-images/{STRAY}/", f"vfs-containers/{STRAY}/")
    before = records(store)
    found = store.collect_garbage()
    assert {garbage.path for garbage in found} == {str(path) for path in made}
    assert Garbage(kind="image", id=STRAY, path=str(made[4])) in found
    assert not any(path.exists() for path in made)
    assert records(store) == before
    assert store.collect_garbage() == []


def test_what_may_be_of_use_stays(store: Store) -> None:
    names = ["vfs/dir/file", "vfs-images/odd/", "vfs-layers/odd.tar-split.gz", f"vfs-images/{STRAY}", "vfs/other/"]
    made = stray(store, *names)
    assert store.collect_garbage() == []
    assert all(path.exists() for path in made)
    assert store.images["a" * 64].data["manifest"] == b"{}"
    assert Path(store.driver.path("2" * 64)).is_dir()


def test_a_dry_run_only_says_what_would_go(store: Store) -> None:
    (made,) = stray(store, f"vfs-images/{STRAY}/")
    assert [garbage.path for garbage in store.collect_garbage(dry_run=True)] == [str(made)]
    assert made.exists()


def test_files_of_a_lost_record_stay_while_another_names_it(store: Store) -> None:
    file = Path(store.config.graphroot, "vfs-layers/layers.json")
    kept = [record for record in json.loads(file.read_bytes()) if record["id"] != "1" * 64]
    file.write_text(json.dumps(kept))
    assert store.collect_garbage() == []
    assert Path(store.driver.path("1" * 64)).is_dir()


def test_a_layer_in_the_making_is_not_garbage(store: Store) -> None:
    with store.driver.building(STRAY, None, LayerSpec()) as build:
        assert store.collect_garbage() == []
        build.publish()
        assert Path(store.driver.path(STRAY)).is_dir()


def test_what_cannot_be_removed_is_an_error_and_the_rest_goes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = stray(store, f"vfs-containers/{STRAY}/", f"vfs-images/{STRAY}/")

    def resist(path: str) -> None:
        if path == str(bad):
            raise PermissionError(1, os.strerror(1), path)
        remove_tree(path)

    monkeypatch.setattr("layerhold.garbage.remove_tree", resist)
    with pytest.raises(PermissionError):
        store.collect_garbage()
    assert bad.exists()
    assert not good.exists()
