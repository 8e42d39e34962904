"""`layerhold convert STORE --to DRIVER`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layerhold.cli.main import main
from layerhold.store import Store
from tests import aufs_store
from tests.aufs_store import DIFFS

BYTES = sum(map(len, DIFFS.values()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    aufs_store.make(tmp_path / "root", tmp_path / "run")
    return tmp_path / "root"


def test_it_says_what_came_of_it(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(root), "--to", "vfs", "--dry-run"]) == 0
    assert capfd.readouterr().out == (
        f"3 layers, 1 image, 1 container would be converted from aufs to vfs: {root}-vfs\n"
    )
    assert not Path(f"{root}-vfs").exists()
    assert main(["convert", str(root), "--to", "vfs"]) == 0
    assert capfd.readouterr().out == f"3 layers, 1 image, 1 container converted from aufs to vfs: {root}-vfs\n"
    assert Store.open(graphroot=f"{root}-vfs", runroot=root.parent / "run2").driver.name == "vfs"


def test_json_and_a_place_that_is_named(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    new = root.parent / "new"
    assert main(["convert", "-j", "--into", str(new), "--to=vfs", str(root)]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "from": "aufs",
        "to": "vfs",
        "root": str(new),
        "layers": 3,
        "images": 1,
        "containers": 1,
        "bytes": BYTES,
    }
    assert sorted(os.listdir(root.parent)) == ["new", "root", "run"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("{root}",), 1, "convert: the driver of the new store is to be named: --to DRIVER\n"),
        (("--to", "vfs"), 1, "convert: more arguments required.\n"),
        (("{root}", "--to", "tape"), 1, "to convert to tape: driver not supported\nhint: the drivers are: overlay, "),
        (("{root}/aufs", "--to", "vfs"), 1, "{root}/aufs: no store there\nhint: name a graph root"),
        (("{root}", "--to", "vfs", "--storage-driver", "vfs"), 1, "{root}: no store there\n"),
        (("{root}", "--to", "vfs", "--into", "{root}"), 1, "{root} and the store {root} would be one in the other\n"),
        (("{root}", "--to", "vfs", "--nope"), 125, "flag provided but not defined: --nope\n"),
        (
            ("{root}", "--to", "vfs", "--storage-opt", "vfs.mountopt=x"),
            1,
            "no store of vfs can be made in {root}-vfs: ",
        ),
    ],
)
def test_what_is_wrong_is_said(
    root: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    assert main(["convert", *(word.format(root=root) for word in words)]) == status
    out, err = capfd.readouterr()
    assert (out + err).startswith(said.format(root=root))
    assert sorted(os.listdir(root.parent)) == ["root", "run"]


def test_go_has_no_such_command(root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["containers-storage"])
    assert main(["convert", str(root), "--to", "vfs"]) == 1
    assert capfd.readouterr().out == "convert: unrecognized command.\n"
