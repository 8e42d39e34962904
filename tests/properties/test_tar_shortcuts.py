"""The fast ways of the tar reader tell just what the slow one tells, whatever the stream is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layerhold.archive import tar
from layerhold.errors import BadArchive
from tests.unit.archive.tars import END, GNU, blocks, file, header, pax

FIELDS = [
    "name",
    "path",
    "kind",
    "mode",
    "uid",
    "gid",
    "size",
    "real_size",
    "mtime",
    "atime",
    "linkname",
    "major",
    "minor",
    "xattrs",
    "sparse",
]
NAMES = st.sampled_from([b"a", b"./b/c", b"d/", b"/e", b"f" * 100])
TIMES = st.sampled_from(
    [b"1", b"1600000000.123456789", b"0.5", b"7.", b".5", b"-1", b"1e3", b"9" * 13, b"1.0000000001", b""]
)
KEYS = st.sampled_from(
    [b"mtime", b"atime", b"ctime", b"SCHILY.xattr.user.x", b"SCHILY.xattr.", b"path", b"size", b"odd"]
)
RECORDS = st.lists(st.tuples(KEYS, TIMES | st.binary(max_size=8)), max_size=4)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.integers(0, 0o7777777),
        "uid": st.integers(0, 0o7777777) | st.just(b"\x80" + bytes(6) + b"\5"),
        "mtime": st.integers(0, 0o77777777777) | st.just(b"            ") | st.just(b"   17       "),
        "link": st.sampled_from([b"", b"a"]),
        "magic": st.sampled_from([GNU, b"\0" * 8]),
        "check": st.integers(0, 0o777777),
    },
)


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    fields: dict[str, Any] = draw(HEADERS)
    if draw(st.booleans()):
        fields.pop("check", None)
    kind = draw(st.sampled_from([b"0", b"5", b"1", b"2", b"3", b"\0", b"7", b"x"]))
    body = header(draw(NAMES), kind, **fields)
    if kind == b"0" and "check" not in fields:
        fields.pop("link", None)
        body = file(draw(NAMES), draw(st.binary(max_size=600)), **fields)
    records = draw(RECORDS)
    return (pax(*records) if records else b"") + body


def told(data: bytes, size: int) -> list[Any]:
    sunk: list[bytes] = []
    found: list[Any] = []
    reader = tar.TarReader(blocks(data, size), header_sink=lambda raw: sunk.append(bytes(raw)))
    try:
        while (entry := reader.next()) is not None:
            content = b"".join(bytes(piece) for piece in reader.content())
            found.append(([getattr(entry, field) for field in FIELDS], content))
        reader.drain()
        found.append(b"".join(sunk))
    except BadArchive as error:
        found.append((str(error), error.offset))
    return found


@given(st.lists(entries(), max_size=5), st.sampled_from([100, 512, 1 << 20]), st.data())
@example([pax((b"mtime", b"1.5")) + file(b"a", b"x")] * 3, 1 << 20, None)
def test_the_same_is_told(parts: list[bytes], size: int, data: Any) -> None:
    stream = b"".join(parts) + END
    if data is not None and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream = stream[:at] + data.draw(st.binary(min_size=1, max_size=1)) + stream[at + 1 :]
    fast = told(stream, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar, "_plain", lambda *_arguments: None)
        patch.setattr(tar.TarReader, "_with_records", lambda *_arguments: None)
        slow = told(stream, size)
    assert fast == slow
