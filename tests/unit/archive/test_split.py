from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING

import pytest

from layerhold.archive.split import split_file
from layerhold.digests import crc64
from tests.unit.archive.split_lines import lines_of, put_together

if TYPE_CHECKING:
    from pathlib import Path


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
