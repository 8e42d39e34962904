"""What is synced, and how, on file systems that keep the order of changes and on others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layerhold.linux import files, mountinfo
from layerhold.tree import durable
from layerhold.tree.files import write_atomic
from tests import disks


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that wait for the disk, each noted and made."""
    found: list[str] = []
    for module, name in ((os, "fsync"), (os, "fdatasync"), (files, "sync_file_range"), (files, "syncfs")):
        made = getattr(module, name)

        def noted(fd: int, name: str = name, made: object = made) -> None:
            found.append(name)
            made(fd)  # type: ignore[operator]

        monkeypatch.setattr(module, name, noted)
    monkeypatch.setattr(durable, "_known", {})
    return found


@pytest.mark.parametrize(("kind", "content"), [("xfs", "sync_file_range"), ("btrfs", "fdatasync")])
def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str], kind: str, content: str) -> None:
    monkeypatch.setattr(mountinfo, "filesystem_of", lambda _path: kind)
    path = str(tmp_path / "file")
    write_atomic(path, b"one", settled=False)
    assert calls == [content]
    calls.clear()
    write_atomic(path, b"two")
    assert calls == [content, "fsync"]
    calls.clear()
    write_atomic(path, b"three", sync=False)
    assert not calls
    assert Path(path).read_bytes() == b"three"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_system_without_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str], number: int
) -> None:
    def missing(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mountinfo, "filesystem_of", lambda _path: "xfs")
    monkeypatch.setattr(files, "sync_file_range", missing)
    write_atomic(str(tmp_path / "file"), b"one")
    assert calls == ["fdatasync", "fsync"]
    calls.clear()
    durable.settle_tree(str(tmp_path), ["file"])
    assert calls == ["syncfs"]


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable, "_known", {})
    monkeypatch.setattr(mountinfo, "filesystem_of", lambda _path: "xfs")
    monkeypatch.setattr(files, "sync_file_range", broken)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="Input/output"):
        write_atomic(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.root
@pytest.mark.parametrize(
    ("kind", "options", "keeps"),
    [("ext4", (), True), ("ext4", ("-O", "^has_journal"), False), ("ext2", (), False), ("xfs", (), True)],
    ids=["ext4", "ext4 without a journal", "ext2", "xfs"],
)
def test_file_systems(kind: str, options: tuple[str, ...], keeps: bool) -> None:
    with disks.disk(kind, *options) as place:
        (place / "below").mkdir()
        assert durable.keeps_order(str(place / "below")) is keeps
