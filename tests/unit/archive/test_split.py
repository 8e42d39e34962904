from __future__ import annotations

import gzip
import json
import os
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from layerhold.archive.split import SplitWriter, assemble, split_file
from layerhold.digests import crc64
from layerhold.errors import DamagedLayer
from tests import stores

if TYPE_CHECKING:
    from pathlib import Path


def lines_of(*calls: tuple[Any, ...]) -> bytes:
    lines: list[bytes] = []
    writer = SplitWriter(lines.append)
    for call in calls:
        if len(call) == 1:
            writer.segment(call[0])
        else:
            writer.file(*call)
    writer.close()
    return b"".join(lines)


def put_together(tmp_path: Path, lines: bytes) -> bytes:
    """Assemble from `lines` and the files below `tmp_path`; no descriptor may stay open."""
    (tmp_path / "split.gz").write_bytes(gzip.compress(lines))
    before = len(stores.descriptors())

    def opened(name: bytes) -> int:
        return os.open(os.fsencode(tmp_path) + b"/" + name, os.O_RDONLY | os.O_NONBLOCK)

    try:
        return b"".join(assemble(str(tmp_path / "split.gz"), opened))
    finally:
        assert len(stores.descriptors()) == before


def test_lines_are_those_of_go() -> None:
    assert lines_of((b"he",), (b"ader",), (b"a/", 0, None), (b"x",), (b"hello", 6, crc64(b"hello\n")), (b"end",)) == (
        b'{"type":2,"payload":"aGVhZGVy","position":0}\n'
        b'{"type":1,"name":"a/","payload":null,"position":1}\n'
        b'{"type":2,"payload":"eA==","position":2}\n'
        b'{"type":1,"name":"hello","size":6,"payload":"YUw+7uLYEAA=","position":3}\n'
        b'{"type":2,"payload":"ZW5k","position":4}\n'
    )
    assert lines_of() == b""


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (b"a b", b'"name":"a b",'),
        (b'"\\', b'"name":"\\"\\\\",'),
        (b"<>&", b'"name":"\\u003c\\u003e\\u0026",'),
        (b"\n\r\t\x01\x7f", b'"name":"\\n\\r\\t\\u0001\x7f",'),
        ("é\u2028".encode(), "é\\u2028".join(('"name":"', '",')).encode()),
        (b"\xff", b'"name_raw":"/w==",'),
        (b"\xed\xa0\x80", b'"name_raw":"7aCA",'),
        (b"", b""),
    ],
)
def test_names(name: bytes, field: bytes, tmp_path: Path) -> None:
    lines = lines_of((name, 0, None))
    assert lines == b'{"type":1,' + field + b'"payload":null,"position":0}\n'
    assert put_together(tmp_path, lines) == b""
    if name:
        (tmp_path / "x").mkdir()
        path = os.fsencode(tmp_path) + b"/x/" + name
        with open(path, "wb") as file:
            file.write(b"data")
        assert put_together(tmp_path, lines_of((b"<",), (b"x/" + name, 4, crc64(b"data")))) == b"<data"


def test_segments_are_bounded(tmp_path: Path) -> None:
    data = os.urandom(3_500_000)
    lines = lines_of((data[:100],), (data[100:],))
    sizes = [len(json.loads(line)["payload"]) * 3 // 4 for line in lines.splitlines()]
    assert len(sizes) == 4
    assert max(sizes) < (1 << 20) + 3
    assert put_together(tmp_path, lines) == data
    assert lines_of((bytes(1 << 20),)).count(b"\n") == 1


def test_split_file_is_gzip(tmp_path: Path) -> None:
    path = tmp_path / "split"
    with split_file(str(path)) as split:
        for _ in range(2000):
            split.segment(os.urandom(300))
            split.file(b"a", 0, None)
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 4000
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError), split_file(str(path)):
        pass


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
        + b'{"type":2,"payload":"","position":2}'
    )
    assert put_together(tmp_path, lines) == big + b"a"
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
