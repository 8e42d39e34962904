"""Copying into a vfs store of whoever runs the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import layerhold
from layerhold.copying import Place, copy


@pytest.fixture
def layer(tmp_path: Path) -> layerhold.Layer:
    store = layerhold.Store.open(graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="vfs")
    return store.layers.create()


def test_a_file_onto_itself_stays(layer: layerhold.Layer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    copy([Place(path=str(tmp_path / "file"))], Place(path="/file", layer=layer))
    copy([Place(path="/file", layer=layer)], Place(path="file", layer=layer))
    copy([Place(path="/", layer=layer)], Place(path="/", layer=layer))
    with layer.mount() as top:
        assert (top / "file").read_text() == "content"


def test_a_directory_into_one_that_it_holds(layer: layerhold.Layer, tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/file").write_text("content")
    copy([Place(path=str(tmp_path / "d"))], Place(path="/", layer=layer))
    copy([Place(path="/", layer=layer)], Place(path="/sub", layer=layer))
    with layer.mount() as top:
        assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == ["file", "sub", "sub/file", "sub/sub"]


def test_names_of_whiteouts_are_names_like_others(layer: layerhold.Layer, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("kept", ".wh.kept", ".wh..wh..opq"):
        (tmp_path / "d" / name).write_text("")
    copy([Place(path=str(tmp_path / "d"))], Place(path="/", layer=layer))
    with layer.mount() as top:
        assert sorted(path.name for path in top.iterdir()) == [".wh..wh..opq", ".wh.kept", "kept"]


def test_after_an_error_nothing_is_mounted(layer: layerhold.Layer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy([Place(path=str(tmp_path / "missing"))], Place(path="/x", layer=layer))
    assert layer.mount_count == 0


def test_links_in_a_layer_stay_in_it(layer: layerhold.Layer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("outside")
    with layer.mount() as top:
        (top / "up").symlink_to("../../../../../../..")
        (top / "away").symlink_to(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        copy([Place(path="/away", layer=layer)], Place(path=str(tmp_path / "got")))
    copy([Place(path=str(tmp_path / "file"))], Place(path="/up/../inside", layer=layer))
    copy([Place(path=str(tmp_path / "file"))], Place(path="/away", layer=layer))
    with layer.mount() as top:
        assert (top / "inside").read_text() == "outside"
        assert not (top / "away").is_symlink()
