from __future__ import annotations

import gzip
import os
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from layerhold.archive.assemble import assemble
from layerhold.digests import crc64
from layerhold.errors import DamagedLayer
from tests.unit.archive.split_lines import lines_of, put_together

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [1, 5000, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_files(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    assert put_together(tmp_path, lines_of((b"<",), (b"f", size, crc64(data)), (b">",))) == b"<" + data + b">"


def test_what_others_write(tmp_path: Path) -> None:
    big = bytes(8 << 20)
    lines = (
        b'{"type":2,"payload":"%b","position":0}\n' % b64encode(big)
        + b'{"position":1, "payload":"YQ==", "type":2}\n'
        + b'{"type":2,"payload":"","position":2}\n'
        + b'{"type":2,"payload":"Yg==","of":"others","position":3}'
    )
    assert put_together(tmp_path, lines) == big + b"ab"
    assert put_together(tmp_path, b"") == b""


def mismatch(name: str) -> str:
    return f'file integrity checksum failed for "{name}"'


def test_files_that_are_not_what_was_noted(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"other")
    os.mkfifo(tmp_path / "fifo")
    os.symlink("nowhere", tmp_path / "link")
    for name, size in ((b"f", 5), (b"f", 4), (b"f", 6), (b"fifo", 5), (b".", 5)):
        with pytest.raises(DamagedLayer, match=mismatch(name.decode())):
            put_together(tmp_path, lines_of((name, size, crc64(b"right"))))
    for name in (b"link", b"absent", b"f/x"):
        with pytest.raises(DamagedLayer, match=name.decode()):
            put_together(tmp_path, lines_of((name, 5, 0)))


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":2,"payload":"YQ==","position":0}',
        b'{"type":2,"payload":"YQ==","position":2}',
        b'{"type":2,"payload":"YQ==","position":true}',
        b'{"type":2,"payload":"YQ=","position":1}',
        b'{"type":2,"payload":"Y*Q==","position":1}',
        b'{"type":2,"payload":5,"position":1}',
        b'{"type":3,"payload":"YQ==","position":1}',
        b'{"payload":"YQ==","position":1}',
        b'{"type":1,"name":"a","payload":null,"position":3}',
        b'{"type":1,"name":"a","size":5,"payload":null,"position":1}',
        b'{"type":1,"name":"a","size":5,"payload":"YQ==","position":1}',
        b'{"type":1,"name":"a","size":-5,"payload":"YUw+7uLYEAA=","position":1}',
        b'{"type":1,"name":"a","size":5.0,"payload":"YUw+7uLYEAA=","position":1}',
        b'{"type":1,"name":"a","size":true,"payload":"YUw+7uLYEAA=","position":1}',
        b'{"type":1,"name":"\\ud800","size":5,"payload":"YUw+7uLYEAA=","position":1}',
        b'{"type":1,"name":["a"],"payload":null,"position":1}',
        b'{"type":1,"name":"a"x"","payload":null,"position":1}',
        b"[]",
        b"5",
        b"[" * 100000,
        b"",
        b"\xff",
    ],
)
def test_damaged_lines(line: bytes, tmp_path: Path) -> None:
    first = b'{"type":2,"payload":"YQ==","position":0}\n'
    with pytest.raises(DamagedLayer):
        put_together(tmp_path, first + line + b"\n")


def test_endless_lines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedLayer, match="a line of more than"):
        put_together(tmp_path, b'{"type":2,"payload":"' + b"A" * (65 << 20))


def test_a_cut_file_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "split.gz"
    path.write_bytes(gzip.compress(lines_of((os.urandom(100),)))[:-4])
    with pytest.raises(DamagedLayer, match="unexpected end"):
        list(assemble(str(path), lambda _name: -1))
