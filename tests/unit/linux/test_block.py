"""File systems on block devices, looked at in files; loop devices."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from layerhold.linux import block, loop
from tests import disks, stores

MIB = 1 << 20


@pytest.mark.parametrize(("kind", "size"), [("ext4", 16), ("xfs", 320)])
def test_what_is_on_a_device(tmp_path: Path, kind: str, size: int) -> None:
    disks.need_mkfs(kind)
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size * MIB)
    assert block.probe(str(image)) is None
    uuid = "5a49c6e0-f409-4164-bbd1-8fe209225b4b"
    words = ["-m", f"uuid={uuid}"] if kind == "xfs" else ["-U", uuid]
    subprocess.run([f"mkfs.{kind}", "-q", *words, str(image)], check=True)
    assert block.probe(str(image)) == block.FileSystem(kind=kind, uuid=uuid)


@pytest.mark.root
def test_a_file_system_grows_with_its_device(tmp_path: Path) -> None:
    """Of xfs: for ext4 the kernel wants CAP_SYS_RESOURCE, which the guest of tests/vm has."""
    kind = "xfs"
    disks.need_mkfs(kind)
    image, place = tmp_path / "image", tmp_path / "place"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True)
    with image.open("r+b") as file:
        file.truncate(400 * MIB)
    with loop.attached(str(image)) as device:
        assert loop.find(str(image)) == device
        with loop.attached(str(image)) as same:
            assert same == device
        assert block.size(device) == 400 * MIB
        subprocess.run(["mount", device, str(place)], check=True)
        try:
            before = _size(place)
            block.grow(str(place), kind, 400 * MIB)
            assert _size(place) > before + 60 * MIB
        finally:
            subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_loop_devices_of_others_are_only_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is mounted cannot be opened for writing on kernels that are strict about it."""
    for name in ("other", "image"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(MIB)
    open_, ioctl = os.open, fcntl.ioctl

    def strict(path: str, flags: int, *words: int) -> int:
        if path.startswith("/dev/loop") and path[9:].isdigit() and flags & os.O_RDWR:
            raise OSError(errno.EBUSY, "in use", path)
        return open_(path, flags, *words)

    def refuse(*_words: object) -> None:
        raise OSError(errno.EIO, "broken")

    with loop.attached(str(tmp_path / "other")) as device:
        monkeypatch.setattr(os, "open", strict)
        assert loop.find(str(tmp_path / "other")) == device
        assert loop.find(str(tmp_path / "image")) == ""
        before = stores.descriptors()
        monkeypatch.setattr(fcntl, "ioctl", refuse)
        with pytest.raises(OSError, match="broken"):
            loop.find(str(tmp_path / "image"))
        monkeypatch.setattr(fcntl, "ioctl", ioctl)
        assert stores.descriptors() == before
        monkeypatch.undo()


def _size(place: Path) -> int:
    info = os.statvfs(place)
    return info.f_blocks * info.f_frsize
