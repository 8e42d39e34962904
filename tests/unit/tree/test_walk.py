"""Every directory of a tree."""

from __future__ import annotations

import os
import subprocess
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
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("long-name", dir_fd=at)
        below = os.open("long-name", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    before = len(stores.descriptors())
    most = count = 0
    try:
        for directory in directories(str(tmp_path)):
            count += 1
            assert os.fstat(directory.fd).st_ino == directory.info.st_ino
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
    finally:  # pytest's own clearing up does not reach the end of a deep tree
        subprocess.run(["rm", "-rf", tmp_path / "long-name"], check=True)
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
