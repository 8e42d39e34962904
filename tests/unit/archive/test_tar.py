from __future__ import annotations

from typing import Any

import pytest

from layerhold.archive.tar import Entry, TarReader
from layerhold.errors import BadArchive
from tests.unit.archive.tars import END, GNU, blocks, file, header, only, padded, pax, read, record

SIZES = [1, 100, 512, 513, 1 << 20]


@pytest.mark.parametrize("size", SIZES)
def test_the_plain_ones(size: int) -> None:
    data = (
        header(b"./", b"5", mode=0o755)
        + file(b"./a", b"hello", uid=1000, gid=100, mtime=1700000000)
        + file(b"./b", bytes(1024))
        + header(b"c", b"2", link=b"a")
        + header(b"d", b"1", link=b"./a")
        + header(b"null", b"3", major=1, minor=3)
        + header(b"fifo", b"6")
        + END
    )
    found = read(data, size)
    assert [(entry.name, entry.path, entry.kind) for entry, _ in found] == [
        (b"./", b"", b"5"),
        (b"./a", b"a", b"0"),
        (b"./b", b"b", b"0"),
        (b"c", b"c", b"2"),
        (b"d", b"d", b"1"),
        (b"null", b"null", b"3"),
        (b"fifo", b"fifo", b"6"),
    ]
    entry, content = found[1]
    assert (entry.uid, entry.gid, entry.mtime, entry.mode) == (1000, 100, 1700000000 * 10**9, 0o644)
    assert (content, entry.size, entry.real_size, entry.sparse) == (b"hello", 5, 5, None)
    assert [found[3][0].linkname, found[4][0].linkname] == [b"a", b"./a"]
    assert (found[5][0].major, found[5][0].minor) == (1, 3)


def test_what_was_not_asked_for_is_passed_over() -> None:
    sunk: list[bytes] = []
    data = file(b"a", b"x" * 1000) + file(b"b", b"y" * 600) + END
    for size in SIZES:
        sunk.clear()
        reader = TarReader(blocks(data, size), header_sink=lambda raw: sunk.append(bytes(raw)))
        assert [entry.name for entry in iter(reader.next, None)] == [b"a", b"b"]
        reader.drain()
        assert b"".join(sunk) == data.replace(b"x", b"").replace(b"y" * 600, b"")


@pytest.mark.parametrize(
    "end", [b"", bytes(512), END, bytes(10240), END + b"garbage", END + file(b"more", b"x"), END + b"\1" * 70000]
)
def test_ends(end: bytes) -> None:
    for size in SIZES:
        assert [entry.name for entry, _ in read(file(b"a", b"x") + end, size)] == [b"a"]


def test_nothing_at_all() -> None:
    assert read(b"") == []
    assert read(END) == []


@pytest.mark.parametrize("cut", [1, 511, 512 + 1, 512 + 5, 512 + 511])
def test_cut_short(cut: int) -> None:
    with pytest.raises(BadArchive, match="unexpected end") as caught:
        read(file(b"a", b"hello")[:cut])
    assert caught.value.offset == cut


def test_cut_after_an_extended_header() -> None:
    with pytest.raises(BadArchive, match="unexpected end"):
        read(pax((b"path", b"x")))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"/a//b/../c/", b"a/c"),
        (b"../../x", b"x"),
        (b".", b""),
        (b"./", b""),
        (b"/", b""),
        (b"./.hidden", b".hidden"),
        (b"a/./b", b"a/b"),
        (b"a/.wh.b", b"a/.wh.b"),
        (b"..", b""),
        (b"...", b"..."),
        (b".//a", b"a"),
        (b"./../a", b"a"),
        (b"a/b/../..", b""),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"x" * 100, b"x" * 100),
    ],
)
def test_paths(name: bytes, path: bytes) -> None:
    assert only(file(name)).path == path
    first, second = (entry for entry, _ in read(file(name) * 2))  # the second is read by another way.
    assert (first.name, first.path) == (second.name, second.path) == (name, path)


def test_only_posix_headers_have_a_prefix() -> None:
    assert only(file(b"b", prefix=b"a/p")).name == b"a/p/b"
    assert only(file(b"b", prefix=b"a" * 155)).name == b"a" * 155 + b"/b"
    assert only(file(b"b", prefix=b"00000000000\0", magic=GNU)).name == b"b"
    assert only(file(b"b", prefix=b"a", magic=bytes(8))).name == b"b"
    assert [entry.name for entry, _ in read(file(b"b", prefix=b"a") * 2)] == [b"a/b"] * 2


def test_old_directories() -> None:
    assert only(header(b"a/", b"\0")).kind == b"5"
    assert only(header(b"a", b"\0")).kind == b"0"
    assert only(header(b"a/", b"0")).kind == b"0"
    assert only(file(b"a", b"x", kind=b"7")).kind == b"0"


def test_base_256() -> None:
    big = (5 << 30).to_bytes(12, "big")
    entry = _first(header(b"a", size=b"\x80" + big[1:], uid=b"\x80" + (1 << 20).to_bytes(7, "big"), magic=GNU))
    assert (entry.size, entry.uid) == (5 << 30, 1 << 20)
    before_1970 = only(
        header(b"a", mtime=(-5).to_bytes(12, "big", signed=True), uid=(-2).to_bytes(8, "big", signed=True))
    )
    assert (before_1970.mtime, before_1970.uid) == (-5 * 10**9, 0xFFFFFFFE)


def _first(data: bytes) -> Entry:
    entry = TarReader(iter([data])).next()
    assert entry is not None
    return entry


@pytest.mark.parametrize(
    "fields",
    [
        {"size": b"\xff" * 12},
        {"size": b"\x80" + b"\x7f" * 11},
        {"size": b"0000000008 \0"},
        {"size": b"-0000000001\0"},
        {"size": b"+0000000001\0"},
        {"size": b"0o000000001\0"},
        {"size": b"00000_00001\0"},
        {"mtime": b"x0000000001\0"},
        {"uid": b"\x80" + b"\x7f" * 7},
        {"gid": b"\x80\0\0\1\0\0\0\0"},
        {"check": 1},
    ],
)
def test_numbers_that_make_no_sense(fields: dict[str, Any]) -> None:
    for before in (b"", file(b"before")):
        with pytest.raises(BadArchive):
            read(before + header(b"a", **fields) + END)


@pytest.mark.parametrize("size", [b"         12 ", b"12\0\0\0\0\0\0\0\0\0\0", b" 12 \0       ", b"000000000012"])
def test_numbers_in_other_forms(size: bytes) -> None:
    assert only(header(b"a", size=size) + padded(b"0123456789")).size == 10


def test_checksum_of_signed_bytes() -> None:
    block = header(b"\xff\xfe")
    signed = sum(block[:148] + b" " * 8 + block[156:]) - 2 * 256
    assert only(header(b"\xff\xfe", check=signed)).name == b"\xff\xfe"


def test_a_lone_block_of_zeros_is_no_end() -> None:
    with pytest.raises(BadArchive):
        read(bytes(512) + file(b"a"))
    with pytest.raises(BadArchive):
        read(bytes(700))


def test_pax_records() -> None:
    long = b"d/" * 200 + "é".encode()
    entry = only(
        pax(
            (b"path", long),
            (b"linkpath", b"target"),
            (b"uid", b"5000000"),
            (b"gid", b"7"),
            (b"mtime", b"1700000000.1234567899"),
            (b"atime", b"-1.5"),
            (b"SCHILY.xattr.user.a", b"\0=\n"),
            (b"SCHILY.xattr.user.none", b""),
            (b"comment", b"x"),
        )
        + file(b"short")
    )
    assert (entry.name, entry.linkname, entry.uid, entry.gid) == (long, b"target", 5000000, 7)
    assert (entry.mtime, entry.atime) == (1700000000_123456789, -1500000000)
    assert entry.xattrs == {b"user.a": b"\0=\n", b"user.none": b""}  # as Go sets it


def test_pax_size() -> None:
    data = b"x" * 700
    ((entry, content),) = read(pax((b"size", b"700")) + header(b"a") + padded(data))
    assert (entry.size, content) == (700, data)


def test_records_are_for_one_entry_and_the_last_header_counts() -> None:
    first, second = (entry for entry, _ in read(pax((b"path", b"x")) + pax((b"uid", b"5")) + file(b"a") + file(b"b")))
    assert (first.name, first.uid, second.name, second.uid) == (b"a", 5, b"b", 0)


def test_a_global_header_is_an_entry_and_changes_nothing() -> None:
    first, second = (entry for entry, _ in read(pax((b"uid", b"5"), kind=b"g") + file(b"a", b"x")))
    assert (first.kind, first.size, second.name, second.uid) == (b"g", 0, b"a", 0)


@pytest.mark.parametrize(
    "data",
    [
        b"0 a=b\n",
        b"5 a=b\n",
        b"7 a=b\n",
        b"6 a=b",
        b"6 =ab\n",
        b"6 abc\n",
        b"x a=b\n",
        b"-6 a=b\n",
        b"99999999999999 a=b\n",
        b"\0" * 20,
        record(b"path", b"a\0b"),
        record(b"a\0", b"b"),
        record(b"size", b"-1"),
        record(b"size", b"9223372036854775808"),
        record(b"size", b"1" * 5000),
        record(b"size", b"1_0"),
        record(b"uid", b"4294967296"),
        record(b"mtime", b"1.x"),
        record(b"mtime", b"9" * 20),
    ],
)
def test_bad_records(data: bytes) -> None:
    with pytest.raises(BadArchive):
        read(file(b"x", data, kind=b"x") + file(b"a") + END)


def test_gnu_long_names() -> None:
    name, link = b"n" * 300, b"l" * 300
    data = file(b"././@LongLink", name + b"\0", kind=b"L", magic=GNU) + file(b"x", link + b"\0", kind=b"K", magic=GNU)
    entry = only(data + header(b"short", b"2", link=b"short", magic=GNU))
    assert (entry.name, entry.linkname) == (name, link)


def test_extended_headers_are_bounded() -> None:
    assert len(only(pax((b"comment", b"x" * 1048000)) + file(b"a")).name) == 1
    with pytest.raises(BadArchive, match="too long"):
        read(pax((b"comment", b"x" * 1100000)) + file(b"a"))
    with pytest.raises(BadArchive, match="too long"):
        read(file(b"x", b"x" * 600000, kind=b"L") + file(b"x", b"x" * 600000, kind=b"K") + file(b"a"))
    endless = (header(b"x", b"x", size=b"\x80" + (1 << 60).to_bytes(11, "big")) for _ in range(1))
    with pytest.raises(BadArchive, match="too long"):
        TarReader(endless).next()


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_only_files_have_content(kind: bytes) -> None:
    for _ in range(2):
        first, again, second = (entry for entry, _ in read(header(b"a", kind, size=700) * 2 + file(b"b")))
        assert (first.size, again.size, second.name) == (0, 0, b"b")


def test_other_kinds_have_content() -> None:
    (entry, content), _ = read(file(b"a", b"x" * 700, kind=b"D") + file(b"b"))
    assert (entry.kind, len(content)) == (b"D", 700)


def old_sparse(stretches: list[tuple[int, int]], real: int, more: bytes = b"\0") -> bytes:
    fields = b"".join(b"%011o\0%011o\0" % each for each in stretches)
    return bytes(386 - 345) + fields.ljust(96, b"\0") + more + b"%011o\0" % real


def test_old_gnu_sparse() -> None:
    data = b"a" * 512 + b"b" * 10
    tail = old_sparse([(1024, 512), (4096, 10)], 5000)
    ((entry, content), _) = read(header(b"s", b"S", size=522, magic=GNU, tail=tail) + padded(data) + file(b"z"))
    assert (entry.kind, entry.size, entry.real_size) == (b"0", 522, 5000)
    assert (entry.sparse, content) == ([(1024, 512), (4096, 10)], data)


def test_old_gnu_sparse_goes_on_in_more_blocks() -> None:
    stretches = [(at * 1000, 1) for at in range(30)]
    rest = b"".join(b"%011o\0%011o\0" % each for each in stretches[4:])
    more = rest[: 21 * 24].ljust(504, b"\0") + b"\1" + bytes(7) + rest[21 * 24 :].ljust(512, b"\0")
    tail = old_sparse(stretches[:4], 1 << 40, more=b"\1")
    assert read(header(b"s", b"S", size=30, magic=GNU, tail=tail) + more + padded(b"x" * 30))[0][0].sparse == stretches


VERSION_1 = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s")]


@pytest.mark.parametrize("size", SIZES)
def test_pax_sparse(size: int) -> None:
    content = b"a" * 5 + b"b" * 3
    forms = [
        pax(
            (b"GNU.sparse.size", b"100"),
            (b"GNU.sparse.numblocks", b"2"),
            *((b"GNU.sparse.%b" % key, value) for key, value in _pairs((10, 5), (20, 3))),
        )
        + file(b"s", content),
        pax((b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", b"10,5,20,3"), (b"GNU.sparse.name", b"s"))
        + file(b"x", content),
        pax(*VERSION_1, (b"GNU.sparse.realsize", b"100")) + file(b"x", padded(b"2\n10\n5\n20\n3\n") + content),
    ]
    for form in forms:
        ((entry, found), last) = read(form + file(b"last"), size)
        assert (entry.name, entry.kind, entry.size, entry.real_size) == (b"s", b"0", 8, 100)
        assert (entry.sparse, found, last[0].name) == ([(10, 5), (20, 3)], content, b"last")


def _pairs(*stretches: tuple[int, int]) -> list[tuple[bytes, bytes]]:
    return [pair for at, size in stretches for pair in ((b"offset", b"%d" % at), (b"numbytes", b"%d" % size))]


@pytest.mark.parametrize(
    "sparse_map",
    [
        b"10,5,12,3",
        b"10,5,99,3",
        b"10,5",
        b"10,5,20",
        b"10,5,20,x",
        b"20,3,10,5",
        b"10,8,9223372036854775807,0",
        b"-1,8",
    ],
)
def test_sparse_maps_that_do_not_add_up(sparse_map: bytes) -> None:
    with pytest.raises(BadArchive):
        read(pax((b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", sparse_map)) + file(b"x", b"12345678"))
    lines = b"%d\n" % ((sparse_map.count(b",") + 1) // 2) + sparse_map.replace(b",", b"\n") + b"\n"
    with pytest.raises(BadArchive):
        read(pax(*VERSION_1, (b"GNU.sparse.realsize", b"100")) + file(b"x", padded(lines) + b"12345678"))


@pytest.mark.parametrize(
    "sparse_map", [b"9999999999\n", b"1" * 9000, b"\n" * 512, b"9223372036854775808\n", b"1\n0\n", b""]
)
def test_maps_in_the_content_are_bounded(sparse_map: bytes) -> None:
    with pytest.raises(BadArchive):
        read(pax(*VERSION_1, (b"GNU.sparse.realsize", b"100")) + file(b"x", padded(sparse_map)) + file(b"y") * 4)


def test_a_sparse_file_may_be_all_hole() -> None:
    entry = only(pax((b"GNU.sparse.size", b"1000"), (b"GNU.sparse.map", b"1000,0")) + file(b"x"))
    assert (entry.real_size, entry.sparse) == (1000, [])
