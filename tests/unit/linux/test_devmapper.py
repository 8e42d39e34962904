"""The ioctls of device mapper, without a kernel that has it: what is asked, and how answers are read."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from layerhold.linux import devmapper
from layerhold.linux.devmapper import Mapper, Target

HEADER = "=3IIIIiIIIQ128s129s7x"


class Kernel:
    """Answers ioctls, and notes them: command, name, flags, and what is behind the header."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, int, bytes]] = []
        self.answers: dict[int, dict[str, object]] = {}

    def ioctl(self, _fd: int, request: int, data: bytearray) -> None:
        assert request >> 8 == (3 << 30 | 312 << 16 | 0xFD << 8) >> 8
        fields = list(struct.unpack_from(HEADER, data))
        assert (fields[0], fields[3], fields[4]) == (4, len(data), 312)
        command = request & 0xFF
        name = bytes(fields[11]).rstrip(b"\0").decode()
        self.asked.append((command, name, fields[7], bytes(data[312:]).rstrip(b"\0")))
        answer = self.answers.get(command, {})
        if "error" in answer:
            raise OSError(answer["error"], "as told")
        for index, value in ((5, "targets"), (6, "open"), (7, "flags"), (10, "number")):
            fields[index] = answer.get(value, 0)
        payload = answer.get("payload", b"")
        assert isinstance(payload, bytes)
        struct.pack_into(HEADER, data, 0, *fields)
        data[312 : 312 + len(payload)] = payload


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    (tmp_path / "control").touch()
    monkeypatch.setattr(devmapper, "DIRECTORY", str(tmp_path))
    monkeypatch.setattr("fcntl.ioctl", kernel.ioctl)
    return kernel


def target(kind: bytes, words: bytes) -> bytes:
    return struct.pack("=QQiI16s", 0, 2048, 0, 0, kind) + words + b"\0"


def test_a_device_is_looked_up(kernel: Kernel) -> None:
    kernel.answers[7] = {"open": 2, "flags": 1 << 1 | 1 << 17, "number": os.makedev(253, 4)}
    found = Mapper().find("some")
    assert found is not None
    assert (found.number, found.open_count, found.suspended, found.deferred) == (os.makedev(253, 4), 2, True, True)
    kernel.answers[7] = {"error": errno.ENXIO}
    assert Mapper().find("none") is None
    kernel.answers[7] = {"error": errno.EPERM}
    with pytest.raises(PermissionError):
        Mapper().find("some")


def test_state_and_table(kernel: Kernel) -> None:
    kernel.answers[12] = {"targets": 1, "payload": target(b"thin-pool", b"3 1/2 3/4 -")}
    assert Mapper().state("pool") == Target(sectors=2048, kind="thin-pool", words="3 1/2 3/4 -")
    Mapper().table("pool")
    assert [flags for _command, _name, flags, _rest in kernel.asked] == [0, 1 << 4]
    kernel.answers[12] = {}
    assert Mapper().state("empty").kind == ""


def test_messages(kernel: Kernel) -> None:
    Mapper().message("pool", "delete 7")
    assert kernel.asked == [(14, "pool", 0, bytes(8) + b"delete 7")]


@pytest.mark.root
def test_a_device_is_made_with_its_node(kernel: Kernel, tmp_path: Path) -> None:
    kernel.answers[6] = {"number": os.makedev(7, 250)}
    Mapper().create("one", Target(sectors=8, kind="thin", words="253:0 5"))
    assert [(command, name) for command, name, _flags, _rest in kernel.asked] == [(3, "one"), (9, "one"), (6, "one")]
    start, sectors, _status, length, kind = struct.unpack_from("=QQiI16s", kernel.asked[1][3] + bytes(8))
    assert (start, sectors, length, kind.rstrip(b"\0")) == (0, 8, 40 + 8, b"thin")
    assert kernel.asked[1][3].endswith(b"253:0 5")
    assert (tmp_path / "one").stat().st_rdev == os.makedev(7, 250)

    kernel.answers[7] = {"error": errno.ENXIO}
    Mapper().remove("one", deferred=True)
    assert kernel.asked[3][:3] == (4, "one", 1 << 17)
    assert not (tmp_path / "one").exists()


def test_what_cannot_be_made_does_not_stay(kernel: Kernel) -> None:
    kernel.answers[9] = {"error": errno.EINVAL}
    with pytest.raises(OSError, match="as told"):
        Mapper().create("one", Target(sectors=8, kind="thin", words="253:0 5"))
    assert [command for command, *_rest in kernel.asked] == [3, 9, 4]


def test_a_device_without_a_node_does_not_stay(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "mknod", refuse)
    with pytest.raises(OSError, match="no space left"):
        Mapper().create("one", Target(sectors=8, kind="thin", words="253:0 5"))
    assert [command for command, *_rest in kernel.asked] == [3, 9, 6, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["control"]


def test_a_name_that_is_too_long(kernel: Kernel) -> None:
    with pytest.raises(OSError, match="too long"):
        Mapper().find("x" * 128)
    assert kernel.asked == []


def test_without_device_mapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "device-mapper" in Path("/proc/misc").read_text():
        pytest.skip("this kernel has it")
    monkeypatch.setattr(devmapper, "DIRECTORY", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no device mapper"):
        Mapper().version()
    assert not any(tmp_path.iterdir())
