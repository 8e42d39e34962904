"""Big data: names of files, and what is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerhold.errors import BigDataUnknown, InvalidBigDataName
from layerhold.records import data


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("manifest", "manifest"),
        ("a.b.0", "a.b.0"),
        ("Foo", "=Rm9v"),
        ("a-b", "=YS1i"),
        ("sha256:00", "=c2hhMjU2OjAw"),
        ("ä", "=w6Q="),
    ],
)
def test_names(key: str, name: str) -> None:
    assert data.file_name(key) == name


@pytest.mark.parametrize("key", ["", "userdata", ".", "..", "a?b?c?", "x\xff\xff"])
def test_keys_without_a_file(key: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidBigDataName):
        data.file_name(key)
    with pytest.raises(InvalidBigDataName):
        data.write(str(tmp_path), key, b"")


@pytest.mark.parametrize("key", ["a" * 240, "A" * 200])
def test_keys_too_long_to_write(key: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidBigDataName):
        data.write(str(tmp_path), key, b"")
    with pytest.raises(BigDataUnknown):
        data.read(str(tmp_path), key[:200] if key[0] == "a" else key[:150])


def test_write_and_read(tmp_path: Path) -> None:
    home = tmp_path / "images/i1"
    with pytest.raises(BigDataUnknown):
        data.read(str(home), "manifest")
    data.write(str(home), "manifest", b"one")
    data.write(str(home), "manifest", b"two")
    data.write(str(home), "a" * 239, b"long")
    assert data.read(str(home), "manifest") == b"two"
    assert data.read(str(home), "a" * 239) == b"long"
    with data.open_data(str(home), "manifest") as file:
        assert file.read() == b"two"
    assert (home / "manifest").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(home)) == ["a" * 239, "manifest"]
