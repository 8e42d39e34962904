"""Every directory of a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerhold.tree.walk import directories
from tests import stores


def test_each_before_those_in_it_in_order(tmp_path: Path) -> None:
    for name in ("b", "a/y/z", "a/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/file").write_text("12345")
    (tmp_path / "link").symlink_to("a")
    found = {}
    for directory in directories(str(tmp_path)):
        assert os.fstat(directory.fd).st_ino == directory.info.st_ino
        found[directory.path] = {name: info.st_size for name, info in directory.entries if name == "file"}
    assert list(found) == ["", "a/", "a/x/", "a/y/", "a/y/z/", "b/"]
    assert found["a/"] == {"file": 5}


def test_deeper_than_paths_and_descriptors(tmp_path: Path) -> None:
    os.close(stores.nested(os.open(tmp_path, os.O_RDONLY), 1500))
    before = len(stores.descriptors())
    most = count = 0
    for directory in directories(str(tmp_path)):
        count += 1
        assert os.fstat(directory.fd).st_ino == directory.info.st_ino
        most = max(most, len(os.listdir("/proc/self/fd")) - before)
    assert count == 1501
    assert most < 150
    assert len(stores.descriptors()) == before


def test_what_is_given_up_is_closed(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    before = len(stores.descriptors())
    walk = directories(str(tmp_path))
    next(walk)
    next(walk)
    walk.close()  # type: ignore[attr-defined]
    assert len(stores.descriptors()) == before


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(directories(str(tmp_path / "missing")))
