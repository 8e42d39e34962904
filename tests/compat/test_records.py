"""Records that both programs write: Go's encoder and ours give the same bytes, and each reads the other's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from layerhold import lock
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.lock import LockFile
from layerhold.records.model import LayerRecord, now
from layerhold.records.table import Table

ONE_TO_ONE = (IdRange(container=0, host=100000, size=65536),)
FULL = LayerRecord(
    id="b" * 64,
    names=("two", "ä<"),
    metadata='<&>\u2028\u2029\b\f\n\r\t\x01\x7f"\\/ä😀',
    created=now(),
    compressed_diff_digest="sha256:" + "1" * 64,
    compressed_size=5,
    diff_digest="sha256:" + "0" * 64,
    diff_size=3,
    compression=2,
    uids=(0, 4294967295),
    gids=(1,),
    flags={"z": {"b": 1, "a": [1, 2.5, None]}, "a": True},
    mappings=IdMappings(uids=ONE_TO_ONE, gids=ONE_TO_ONE),
    big_data_names=("k",),
)

Go = Callable[..., str]


@pytest.fixture
def go(programs: ModuleType, tmp_path: Path) -> Go:
    roots = ["-s", "vfs", "-g", str(tmp_path / "graph"), "-R", str(tmp_path / "run")]

    def run(*words: str) -> str:
        done = subprocess.run([programs.storage(), *roots, *words], check=True, capture_output=True)
        return done.stdout.decode()

    return run


def layers(tmp_path: Path) -> Table[LayerRecord]:
    home = tmp_path / "graph/vfs-layers"
    return Table(LayerRecord, LockFile(str(home / "layers.lock"), rank=lock.LAYERS), [str(home / "layers.json")])


def test_ours_and_go_write_the_same_bytes(go: Go, tmp_path: Path) -> None:
    go("create-layer", "-n", "one")
    file = tmp_path / "graph/vfs-layers/layers.json"
    by_go = file.read_bytes()
    with layers(tmp_path).writing() as edit:
        for record in list(edit):
            edit.put(record.replace(metadata="to be encoded anew"))
            edit.put(record)
    assert file.read_bytes() == by_go

    os.mkdir(tmp_path / "graph/vfs/dir" / FULL.id)
    with layers(tmp_path).writing() as edit:
        edit.put(FULL)
        edit.put(LayerRecord(id="c" * 64))
        edit.put(edit.find("one").replace(metadata="x"))  # type: ignore[union-attr]
    by_us = file.read_bytes()
    go("set-metadata", "-m", "y", "one")
    assert file.read_bytes() == by_us.replace(b'"metadata":"x"', b'"metadata":"y"')
    assert FULL.metadata in go("metadata", "two")
    with layers(tmp_path).reading() as view:
        assert view.find("two") == FULL
