"""Tars that tests bring into stores: a real root filesystem, layers of many small or few large files, and odd ones.

The first three are made once, in `.work/inputs/` of the checkout, each under a lock file and renamed into place; only
the root filesystem is fetched, all else is made here. The odd ones are pure functions that return the bytes of a tar.
"""

from __future__ import annotations

import gzip
import importlib
import io
import os
import random
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tests import programs

INPUTS = programs.WORK / "inputs"
SUITE = "bookworm"
SMALL_FILES = 30_000
BIG_FILES = 8
EIGHT = 8
BLOCK = 512
MIB = 1 << 20
MTIME = 1_600_000_000


class Input(NamedTuple):
    """One tar in the forms in which it may come."""

    tar: Path
    gz: Path
    zst: Path


def rootfs() -> Input:
    """A Debian root filesystem by `mmdebstrap --variant=minbase`."""
    if not shutil.which("mmdebstrap"):
        raise programs.Unavailable("mmdebstrap is not installed (Debian: apt-get install mmdebstrap)")
    return _input("rootfs-1", _make_rootfs)


def small() -> Input:
    """A layer of 30,000 small files, with links, varied owners and modes, times in nanoseconds and some xattrs."""
    return _input("small-2", _make_small)


def big() -> Input:
    """A layer of 1 GiB in 8 files, of which gzip saves a third and zstd half."""
    return _input("big-1", _make_big)


def of_files(count: int) -> Path:
    """A plain tar as that of `small`, of `count` files."""
    if count == SMALL_FILES:
        return small().tar

    def make(place: Path, _final: Path) -> None:
        _write(place / "layer.tar", _small_members(random.Random(7), count))

    return programs.made(INPUTS / f"files-{count}-1", make) / "layer.tar"


def eight() -> list[Path]:
    """Eight layers, as one image may have them: each 2,000 small files and 32 MiB of larger ones, by gzip."""

    def make(place: Path, _final: Path) -> None:
        for number in range(EIGHT):
            random_ = random.Random(number)
            tar = place / f"{number}.tar"
            _write(tar, chain(_small_members(random_, 2000), _big_members(random_, 4, 8 * MIB)))
            _pack_gz(tar)
            tar.unlink()

    folder = programs.made(INPUTS / "eight-1", make)
    return [folder / f"{number}.tar.gz" for number in range(EIGHT)]


def _input(name: str, make: Callable[[Path], None]) -> Input:
    def all_forms(place: Path, final: Path) -> None:
        tar = place / "layer.tar"
        make(tar)
        _pack_gz(tar)
        _pack_zst(tar)
        for path in place.iterdir():
            path.chmod(0o644)

    folder = programs.made(INPUTS / name, all_forms)
    return Input(folder / "layer.tar", folder / "layer.tar.gz", folder / "layer.tar.zst")


def _pack_gz(tar: Path) -> None:
    """Compress a tar beside itself, by all processors where pigz is there."""
    if shutil.which("pigz"):
        programs.run("pigz", "-q", "-n", "-6", "-k", str(tar))
        return
    with tar.open("rb") as source, gzip.open(f"{tar}.gz", "wb", compresslevel=6) as packed:
        shutil.copyfileobj(source, packed, MIB)


def _pack_zst(tar: Path) -> None:
    """Compress a tar beside itself, by the program where it is there."""
    if shutil.which("zstd"):
        programs.run("zstd", "-q", "-3", str(tar), "-o", f"{tar}.zst")
        return
    zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    with tar.open("rb") as source, zstd.open(f"{tar}.zst", "wb", level=3) as packed:
        shutil.copyfileobj(source, packed, MIB)


def _make_rootfs(tar: Path) -> None:
    options = ['--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=Acquire::Retries "3"']
    programs.run("mmdebstrap", "--quiet", "--variant=minbase", *options, SUITE, str(tar), programs.apt_line(SUITE))


def _make_small(tar: Path) -> None:
    _write(tar, _small_members(random.Random(7), SMALL_FILES))


def _make_big(tar: Path) -> None:
    _write(tar, _big_members(random.Random(8), BIG_FILES, 1024 // BIG_FILES * MIB))


def _write(tar: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
        for member, data in members:
            out.addfile(member, io.BytesIO(data))


def _big_members(random_: random.Random, count: int, size: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Files of `size` bytes, whole MiB, of which a quarter is noise and the rest is like text: of a few words each."""
    words = [random_.randbytes(random_.randrange(3, 16)) for _ in range(4096)]
    pieces = [b"".join(random_.choices(words, k=16_000))[: MIB // 8] for _ in range(256)]
    yield entry("opt", tarfile.DIRTYPE, 0o755), b""
    for number in range(count):
        blocks = (b"".join((*random_.choices(pieces, k=6), random_.randbytes(MIB // 4))) for _ in range(size // MIB))
        yield entry(f"opt/large-{number}", mode=0o755, size=size), b"".join(blocks)


def _small_members(random_: random.Random, count: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    modes = (0o644, 0o644, 0o600, 0o755, 0o4755, 0o2755, 0o400)
    yield entry("srv", tarfile.DIRTYPE, 0o755), b""
    for number in range(count):
        folder = f"srv/{number // 1000:02d}/{number // 50 % 20:02d}"
        if number % 1000 == 0:
            yield entry(f"srv/{number // 1000:02d}", tarfile.DIRTYPE, 0o755), b""
        if number % 50 == 0:
            yield entry(folder, tarfile.DIRTYPE, 0o1777 if number % 500 == 0 else 0o755), b""
        name = f"{folder}/file-{number:05d}"
        data = random_.randbytes(random_.choice((0, 20, 200, 900, 3000)))
        member = entry(name, tarfile.REGTYPE, random_.choice(modes), size=len(data))
        member.uid, member.gid = random_.choice(((0, 0), (0, 0), (1000, 1000), (33, 4), (70000, 70001)))
        member.pax_headers = {"mtime": f"{MTIME + number}.{random_.randrange(1, 10**9):09d}"}
        if number % 40 == 0:
            member.pax_headers = {**member.pax_headers, "SCHILY.xattr.user.note": f"number {number}"}
        yield member, data
        if number % 100 == 7:
            # As every archiver writes it: a second name has the owner, mode and times of the file.
            link = entry(f"{folder}/hard-{number:05d}", tarfile.LNKTYPE, member.mode, linkname=name)
            link.uid, link.gid, link.pax_headers = member.uid, member.gid, dict(member.pax_headers)
            yield link, b""
        if number % 100 == 8:
            yield entry(f"{folder}/soft-{number:05d}", tarfile.SYMTYPE, 0o777, linkname=f"file-{number:05d}"), b""


def entry(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    *,
    size: int = 0,
    linkname: str = "",
    mtime: int = MTIME,
) -> tarfile.TarInfo:
    """A header with steady values."""
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname, member.mtime = kind, mode, size, linkname, mtime
    return member


# -- odd tars, each a kind of its own


def odd() -> dict[str, bytes]:
    """Valid tars by what is odd about them; all can be unpacked by root, those in `ODD_FOR_USERS` by anyone."""
    return {name: make() for name, make in sorted(_ODD.items())}


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _plain() -> bytes:
    """The simplest: ustar, a directory and a file."""
    folder, file = entry("etc", tarfile.DIRTYPE, 0o755), entry("etc/name")
    return _tar((folder, b""), (file, b"hello\n"), form=tarfile.USTAR_FORMAT)


def _gnu_long() -> bytes:
    """Names and targets over 100 bytes as GNU's L and K headers."""
    long = "/".join(["directory-with-a-long-name"] * 7)
    link = entry("link", tarfile.SYMTYPE, 0o777, linkname="../" * 40 + "target" * 20)
    return _tar((entry(long), b"long\n"), (link, b""), (entry("hard", tarfile.LNKTYPE, linkname=long), b""))


def _pax_long() -> bytes:
    """The same as PAX records, with times in nanoseconds, before 1970 too, and numbers over the octal fields."""
    long = entry("d/" + "n" * 180)
    long.pax_headers = {"mtime": "1600000000.123456789", "atime": "1500000000.5"}
    early = entry("early")
    early.pax_headers = {"mtime": "-1.25"}
    big = entry("big-owner")
    big.uid, big.gid = 3_000_000, 4_000_000
    return _tar((long, b"x"), (early, b""), (big, b"y"), form=tarfile.PAX_FORMAT)


def _pax_global() -> bytes:
    """A global PAX header, as `git archive` writes, before the entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c" * 40}) as tar:
        tar.addfile(entry("file", size=3), io.BytesIO(b"abc"))
    return out.getvalue()


def _base256() -> bytes:
    """Owners over the octal fields in GNU's binary form."""
    member = entry("owned")
    member.uid, member.gid = 5_000_000, 6_000_000
    return _tar((member, b"z" * 700))


def _devices() -> bytes:
    """Character and block devices and a FIFO."""
    null, disk = entry("null", tarfile.CHRTYPE, 0o666), entry("disk", tarfile.BLKTYPE, 0o660)
    null.devmajor, null.devminor, disk.devmajor, disk.devminor = 1, 3, 8, 300
    pipe = entry("pipe", tarfile.FIFOTYPE, 0o600)
    return _tar((null, b""), (disk, b""), (pipe, b""))


def _special_modes() -> bytes:
    """Setuid, setgid and sticky bits, on files with owners of their own, and directories that nobody may write."""
    setid, closed = entry("su", mode=0o6755), entry("closed", tarfile.DIRTYPE, 0o555)
    setid.uid, setid.gid = 1, 2
    secret, sticky = entry("closed/secret", mode=0o000), entry("sticky", tarfile.DIRTYPE, 0o1777)
    return _tar((setid, b"#!"), (closed, b""), (secret, b"secret"), (sticky, b""))


def _capabilities() -> bytes:
    """A file capability and other xattrs, binary values too."""
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    return _pax_entry("ping", b"ELF", {b"SCHILY.xattr.security.capability": capability}) + _pax_entry(
        "noted", b"n", {b"SCHILY.xattr.user.binary": b"a\x00=\n\xff", b"SCHILY.xattr.user.empty": b""}, end=True
    )


def _non_utf8() -> bytes:
    """Names and targets that are no UTF-8."""
    name = os.fsdecode(b"caf\xe9/\xff\xfe")
    link = entry("to-latin1", tarfile.SYMTYPE, 0o777, linkname=os.fsdecode(b"caf\xe9"))
    return _tar((entry(os.fsdecode(b"caf\xe9"), tarfile.DIRTYPE, 0o755), b""), (entry(name), b"bytes"), (link, b""))


def _hard_links() -> bytes:
    """Groups of hard links, to a symbolic link too, and a chain through the second name."""
    soft = entry("soft", tarfile.SYMTYPE, 0o777, linkname="one")
    links = [
        entry(name, tarfile.LNKTYPE, linkname=to) for name, to in (("two", "one"), ("three", "two"), ("soft2", "soft"))
    ]
    return _tar((entry("one"), b"same"), (soft, b""), *((link, b"") for link in links))


def _dotted() -> bytes:
    """Names with ./ and / before them and / behind, as `tar -C dir .` writes."""
    names = [entry("./", tarfile.DIRTYPE, 0o700), entry("./a/", tarfile.DIRTYPE, 0o750), entry("./a/b"), entry("/c//d")]
    return _tar(*((member, b"" if member.isdir() else b"1") for member in names))


def _merged_usr() -> bytes:
    """Entries below a link to a directory, and an absolute link: resolved inside the layer."""
    members = [
        (entry("usr/bin", tarfile.DIRTYPE, 0o755), b""),
        (entry("bin", tarfile.SYMTYPE, 0o777, linkname="usr/bin"), b""),
        (entry("bin/tool"), b"tool"),
        (entry("sbin", tarfile.SYMTYPE, 0o777, linkname="/usr/bin"), b""),
        (entry("sbin/other"), b"other"),
    ]
    return _tar(*members)


def _gnu_sparse() -> bytes:
    """A file with holes in GNU's old form: 4 KiB of data at 1 MiB and the end at 2 MiB."""
    return _gnu_sparse_entry("holes", [(1 << 20, 4096)], 2 << 20, b"d" * 4096) + bytes(2 * BLOCK)


def _pax_sparse() -> bytes:
    """The same in PAX form 1.0, whose map stands before the data."""
    table = b"2\n1048576\n4096\n2097152\n0\n".ljust(BLOCK, b"\0")
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": b"holes",
        b"GNU.sparse.realsize": b"2097152",
    }
    return _pax_entry("GNUSparseFile.0/holes", table + b"d" * 4096, records, end=True)


def _no_end() -> bytes:
    """No blocks of zeros at the end."""
    return _pax_entry("file", b"no end", {b"mtime": b"1600000000.5"})


def _garbage_behind() -> bytes:
    """Bytes behind the end of the archive, which come back, too."""
    return _plain() + b"trailing garbage" * 100


def _twice() -> bytes:
    """The same name twice: the second wins; and a file that becomes a directory."""
    return _tar(
        (entry("name"), b"first"),
        (entry("name"), b"second"),
        (entry("x"), b"f"),
        (entry("x", tarfile.DIRTYPE, 0o755), b""),
    )


def _whiteouts() -> bytes:
    """For a layer above `plain`: a name taken away and a directory emptied."""
    return _tar(
        (entry("etc", tarfile.DIRTYPE, 0o755), b""),
        (entry("etc/.wh.name"), b""),
        (entry("etc/new"), b"new"),
        (entry("opt", tarfile.DIRTYPE, 0o755), b""),
        (entry("opt/.wh..wh..opq"), b""),
        (entry("opt/kept"), b"kept"),
    )


def _empty() -> bytes:
    """No entry at all."""
    return bytes(2 * BLOCK)


def _pax_entry(name: str, data: bytes, records: Mapping[bytes, bytes], *, end: bool = False) -> bytes:
    """An entry with PAX records of arbitrary bytes, which `tarfile` cannot write."""
    body = b"".join(_pax_record(key, value) for key, value in records.items())
    header = entry(f"PaxHeaders/{name}", tarfile.XHDTYPE, size=len(body)).tobuf(tarfile.USTAR_FORMAT)
    file = entry(name, size=len(data)).tobuf(tarfile.USTAR_FORMAT)
    return header + _padded(body) + file + _padded(data) + (bytes(2 * BLOCK) if end else b"")


def _pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _gnu_sparse_entry(name: str, regions: list[tuple[int, int]], real_size: int, data: bytes) -> bytes:
    member = entry(name, tarfile.GNUTYPE_SPARSE, size=len(data))
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    for number, (offset, size) in enumerate([*regions, (real_size, 0)]):
        header[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % (offset, size)
    header[483:495] = b"%011o\0" % real_size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


_ODD: dict[str, Callable[[], bytes]] = {
    "base-256": _base256,
    "capabilities": _capabilities,
    "devices": _devices,
    "dotted": _dotted,
    "empty": _empty,
    "garbage-behind": _garbage_behind,
    "gnu-long": _gnu_long,
    "gnu-sparse": _gnu_sparse,
    "hard-links": _hard_links,
    "merged-usr": _merged_usr,
    "no-end": _no_end,
    "non-utf8": _non_utf8,
    "pax-global": _pax_global,
    "pax-long": _pax_long,
    "pax-sparse": _pax_sparse,
    "plain": _plain,
    "special-modes": _special_modes,
    "twice": _twice,
    "whiteouts": _whiteouts,
}
# Without owners, devices or privileged xattrs in them.
ODD_FOR_USERS = frozenset(
    {"dotted", "empty", "garbage-behind", "gnu-long", "hard-links", "merged-usr", "no-end", "non-utf8"}
)
# What Go's containers-storage cannot take in: GNU's old sparse form; and, in its tar-split, the same name twice.
ODD_NOT_FOR_GO = frozenset({"gnu-sparse", "twice"})
# Where GNU tar does otherwise: it does not resolve absolute links within the tree, and knows nothing of whiteouts.
ODD_NOT_FOR_GNU_TAR = frozenset({"merged-usr", "whiteouts"})
