"""What an archive becomes on disk: equal to GNU tar's extraction, marks for whiteouts, clear refusals."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from layerhold.archive.apply import Applied, apply
from layerhold.archive.entry import clean, climbs
from layerhold.archive.extract import ERASE, OVERLAY_MARKS
from layerhold.errors import NotPermitted, RefusedEntry, StorageError
from layerhold.ids.mappings import IdMappings, IdRange

BOTH = pytest.mark.parametrize("deletions", [ERASE, pytest.param(OVERLAY_MARKS, marks=pytest.mark.root)])
NOBODY = 65534

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.uid, info.gid, info.mtime = os.getuid(), os.getgid(), 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpack(data: bytes, into: Path, *, deletions: str = ERASE, squash: bool = False) -> Applied:
    into.mkdir(exist_ok=True)
    return apply(io.BytesIO(data), str(into), deletions=deletions, squash=squash)


def directory(name: str, **fields: Any) -> Member:
    return member(name, tarfile.DIRTYPE, **fields)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE, **fields: Any) -> Member:
    return member(name, kind, linkname=target, **fields)


def hard(name: str, target: str) -> Member:
    return link(name, target, tarfile.LNKTYPE)


def listing(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


# --- names


@pytest.mark.parametrize(
    ("name", "path", "above"),
    [
        (b"a//b/./c/", b"a/b/c", False),
        (b"/a", b"a", False),
        (b"a/../b", b"b", False),
        (b"a/..", b"", False),
        (b"../x", b"x", True),
        (b"a/../../x", b"x", True),
        (b"/..", b"", True),
        (b"..a/b..", b"..a/b..", False),
    ],
)
def test_names(name: bytes, path: bytes, above: bool) -> None:
    assert clean(name) == path
    assert climbs(name) == above


def test_absolute_names_and_names_under_links_are_ordinary(tmp_path: Path) -> None:
    unpack(
        tar(
            directory("/usr/bin"),
            link("bin", "usr/bin"),
            member("bin/sh", content=b"#!"),
            link("sbin", "/usr/bin"),
            member("/sbin/init", content=b"i"),
            hard("sbin/bash", "/bin/sh"),
        ),
        tmp_path / "t",
    )
    assert (tmp_path / "t/usr/bin/bash").read_bytes() == b"#!"
    assert (tmp_path / "t/usr/bin/init").read_bytes() == b"i"
    assert os.readlink(tmp_path / "t/sbin") == "/usr/bin"


def test_missing_parents_are_made(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        unpack(tar(member("a/b/f", mode=0o666)), tmp_path / "t")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "t/a/b").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "t/a/b/f").stat().st_mode) == 0o666


# --- what is refused

LONG = "d/" * 60 + "x" * 300
REFUSED: dict[str, tuple[list[Member], str]] = {
    "the same name twice": ([member("a"), member("./a")], "duplicates of file paths not supported"),
    "the root twice": ([directory("./"), directory("/")], "duplicates of file paths not supported"),
    "dotdot": ([member("../x")], r"leads out"),
    "dotdot inside": ([directory("a"), member("a/../../x")], r"leads out"),
    "under a file": ([member("f"), member("f/x")], "not a directory"),
    "directory under a file": ([member("f"), directory("f/x")], "not a directory"),
    "link under a file": ([member("f"), link("f/x", "y")], "not a directory"),
    "under a dangling link": ([link("l", "nowhere"), member("l/x")], "file exists"),
    "under a link to itself": ([link("l", "l"), member("l/x")], "too many links"),
    "hard link to nothing": ([hard("h", "missing")], "No such file"),
    "hard link out": ([hard("h", "../../etc/passwd")], "invalid hardlink"),
    "hard link absolute": ([hard("h", "/etc/passwd")], "No such file"),
    "hard link to the root": ([hard("h", "/")], "invalid hardlink"),
    "hard link to itself": ([hard("h", "./h")], "hard link to itself"),
    "hard link to a directory": ([directory("d"), hard("h", "d")], "hard link to"),
    "hard link through a link out": ([link("l", "/etc"), hard("h", "l/passwd")], "No such file"),
    "empty link": ([link("l", "")], "no usable name"),
    "long link": ([link("l", "x" * 5000)], "too long"),
    "long name": ([member(LONG)], "too long"),
    "very long name": ([member("d/" * 3000 + "x")], "too long"),
    "no kind": ([member("q", b"Q")], "unhandled tar header type 81"),
    "a file as the root": ([member("./")], "root must be a directory"),
    "a link as the root": ([link(".", "x")], "root must be a directory"),
    "whiteout without a name": ([member("d/.wh.")], "hides no name"),
    "whiteout of dotdot": ([member("d/.wh...")], "hides no name"),
    "a file over a directory with files": ([member("d/f"), member("d")], "files of this archive"),
    "an impossible owner": ([member("f", uid=(1 << 32) - 1)], "no owner has"),
}


@BOTH
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, deletions: str, tmp_path: Path) -> None:
    members, text = REFUSED[case]
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(RefusedEntry, match=text) as caught:
        unpack(tar(*members), tmp_path / "t", deletions=deletions)
    last = members[-1][0]
    assert last.name.strip("./")[:50] in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["outside", "t"]


def test_a_global_header_is_no_entry(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as archive:
        archive.addfile(tarfile.TarInfo("f"))
    unpack(buffer.getvalue(), tmp_path / "t", squash=True)
    assert listing(tmp_path / "t") == ["f"]


# --- what was there


@BOTH
def test_what_was_there_is_replaced(deletions: str, tmp_path: Path) -> None:
    top = tmp_path / "t"
    (top / "dir/inner").mkdir(parents=True)
    (top / "dir/f").write_text("old")
    (top / "kept").mkdir()
    (top / "kept/old").write_text("old")
    (tmp_path / "outside").write_text("outside")
    (top / "link").symlink_to(tmp_path / "outside")
    (top / "f").write_text("old")
    os.link(top / "f", top / "other")
    unpack(
        tar(
            member("dir", content=b"new"),
            directory("kept", mode=0o700),
            member("link", content=b"new"),
            member("f", content=b"new"),
        ),
        top,
        deletions=deletions,
    )
    assert (top / "dir").read_text() == (top / "link").read_text() == (top / "f").read_text() == "new"
    assert (top / "other").read_text() == "old"
    assert (tmp_path / "outside").read_text() == "outside"
    assert (top / "kept/old").exists()
    assert stat.S_IMODE((top / "kept").stat().st_mode) == 0o700


def test_default_acls_do_not_reach_files(tmp_path: Path) -> None:
    acl = bytes.fromhex("0200000001000700ffffffff04000000ffffffff20000000ffffffff")
    top = tmp_path / "t"
    top.mkdir()
    try:
        os.setxattr(top, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("this file system has no ACLs")
    unpack(tar(directory("d"), member("d/f", mode=0o664)), top)
    assert stat.S_IMODE((top / "d/f").stat().st_mode) == 0o664
    assert os.listxattr(top / "d") == os.listxattr(top / "d/f") == []


# --- whiteouts


def lower(top: Path) -> None:
    for name in ("d/sub", "e"):
        (top / name).mkdir(parents=True)
    for name in ("d/a", "d/b", "d/sub/c", "e/f"):
        (top / name).write_text("lower")


def test_whiteouts_remove_where_the_tree_is_whole(tmp_path: Path) -> None:
    top = tmp_path / "t"
    lower(top)
    unpack(
        tar(
            member("d/sub/new"),
            member("d/new"),
            member("d/.wh..wh..opq"),
            member(".wh.e"),
            member(".wh.missing"),
            directory(".wh..wh.plnk"),
            member(".wh..wh.plnk/x"),
            member(".wh..wh.aufs"),
        ),
        top,
    )
    assert listing(top) == ["d", "d/new", "d/sub", "d/sub/new"]


def test_a_whiteout_spares_what_the_archive_brought(tmp_path: Path) -> None:
    top = tmp_path / "t"
    lower(top)
    unpack(tar(member("d/a", content=b"new"), member(".wh.d"), member("d/.wh.a")), top)
    assert listing(top) == ["d", "d/a", "e", "e/f"]
    assert (top / "d/a").read_text() == "new"


@pytest.mark.root
def test_whiteouts_become_marks(tmp_path: Path) -> None:
    top = tmp_path / "t"
    unpack(
        tar(
            directory("d"),
            member("d/.wh..wh..opq"),
            member("x/.wh.gone", uid=7, gid=8),
            member(".wh.e"),
            member("e/.wh.below"),
            member("e/.wh..wh..opq"),
            member(".wh..wh.plnk"),
            member(".wh.dir"),
            directory("dir"),
            member(".wh.f"),
            member("f"),
        ),
        top,
        deletions=OVERLAY_MARKS,
    )
    assert listing(top) == [".wh.plnk", "d", "dir", "e", "f", "x", "x/gone"]
    info = (top / "x/gone").lstat()
    assert stat.S_ISCHR(info.st_mode)
    assert (info.st_rdev, info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (0, 7, 8, 0)
    assert os.getxattr(top / "d", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(top / "dir", "trusted.overlay.opaque") == b"y"
    assert os.listxattr(top / "e", follow_symlinks=False) == []


@pytest.mark.root
@pytest.mark.parametrize("before", ["f", "f/below"])
def test_a_mark_does_not_replace_what_the_archive_brought(before: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedEntry, match="file exists"):
        unpack(tar(member(before), member(".wh.f")), tmp_path / "t", deletions=OVERLAY_MARKS)


# --- times


def test_a_directory_that_a_mark_empties_keeps_its_time(tmp_path: Path) -> None:
    top = tmp_path / "t"
    lower(top)
    unpack(tar(directory("d", mtime=5), member("d/.wh..wh..opq")), top)
    assert (top / "d").stat().st_mtime == 5


def test_times_are_those_of_the_headers_in_any_order(tmp_path: Path) -> None:
    top = tmp_path / "t"
    unpack(
        tar(
            member("d/sub/f", pax_headers={"mtime": "5.000000005"}),
            directory("d/sub", pax_headers={"mtime": "4.000000004"}),
            directory("d", pax_headers={"mtime": "3.000000003"}),
            member("d/late"),
            directory("./", pax_headers={"mtime": "2.000000002", "atime": "9.5"}),
            member("old", mtime=-5),
            link("d/l", "x", pax_headers={"mtime": "6.000000006"}),
            member("last"),
        ),
        top,
    )
    got = {name: (top / name).lstat().st_mtime_ns for name in ("d/sub/f", "d/sub", "d", ".", "old", "d/l")}
    assert got == {
        "d/sub/f": 5_000_000_005,
        "d/sub": 4_000_000_004,
        "d": 3_000_000_003,
        ".": 2_000_000_002,
        "old": 0,
        "d/l": 6_000_000_006,
    }


# --- equal to GNU tar


def make_tree(top: Path) -> None:
    """One of each kind of file, with the attributes that a layer may have."""
    (top / "usr/bin").mkdir(parents=True)
    (top / "bin").symlink_to("usr/bin")
    (top / "usr/bin/su").write_bytes(b"s" * 70_000)
    os.chown(top / "usr/bin/su", 0, 5)
    (top / "usr/bin/su").chmod(0o4755)
    (top / "usr/bin/ping").write_bytes(b"p")
    os.chown(top / "usr/bin/ping", 1000, 1000)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(top / "usr/bin/ping", "security.capability", capability)
    os.link(top / "usr/bin/ping", top / "ping2")
    (top / "var/mail").mkdir(parents=True)
    os.chown(top / "var/mail", 0, 8)
    (top / "var/mail").chmod(0o2775)
    (top / "var/mail/me").write_text("mail")
    (top / "tmp").mkdir()
    (top / "tmp").chmod(0o1777)
    os.mkfifo(top / "fifo", 0o620)
    os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "disk", 0o660 | stat.S_IFBLK, os.makedev(7, 300))
    os.symlink("/etc/../nowhere", top / "dangling")
    os.chown(top / "dangling", 3, 4, follow_symlinks=False)
    (top / "closed").mkdir()
    (top / "closed/f").write_text("x")
    (top / "closed/f").chmod(0)
    os.setxattr(top / "closed", "user.note", b"n\0n")
    os.setxattr(top / "closed", "trusted.note", b"t")
    (top / "closed").chmod(0o500)
    (top / os.fsdecode(b"latin-\xe9")).write_text("")
    (top / ("long" * 50)).write_text("")
    with open(top / "sparse", "wb") as file:
        file.write(b"begin")
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(16 << 20)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 + number * 1_000_000_007), follow_symlinks=False)
    os.utime(top, ns=(0, 1_500_000_000_000_000_001))


def described(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a layer must keep; a hard link is described by the first of its names."""
    first: dict[int, str] = {}
    found: dict[str, tuple[object, ...]] = {}
    for path in (top, *sorted(top.rglob("*"))):
        name, info = str(path.relative_to(top)), path.lstat()
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        if stat.S_ISREG(info.st_mode):
            content: object = path.read_bytes()
        else:
            content = os.readlink(path) if path.is_symlink() else info.st_rdev
        same = None if path.is_dir() else first.setdefault(info.st_ino, name)
        found[name] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, attributes, content, same)
    return found


GNU = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]


@pytest.mark.root
@BOTH
@pytest.mark.parametrize("sparse", [[], ["--sparse"], ["--sparse", "--sparse-version=0.1"]], ids=" ".join)
def test_equal_to_gnu_tar(deletions: str, sparse: list[str], tmp_path: Path) -> None:
    for name in ("source", "gnu", "ours"):
        (tmp_path / name).mkdir()
    make_tree(tmp_path / "source")
    make = ["tar", "--format=pax", "--xattrs", "--xattrs-include=*", "--numeric-owner", *sparse, "-C"]
    data = subprocess.run([*make, tmp_path / "source", "-c", "."], check=True, capture_output=True).stdout
    subprocess.run(["tar", *GNU, "-C", tmp_path / "gnu", "-x"], input=data, check=True)
    unpack(data, tmp_path / "ours", deletions=deletions)
    assert described(tmp_path / "ours") == described(tmp_path / "gnu")
    if sparse:
        assert (tmp_path / "ours/sparse").stat().st_blocks < 1000


def test_a_sparse_file_cannot_fill_the_disk(tmp_path: Path) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s"}
    for size in (1 << 42, 1 << 60):
        into = tmp_path / str(size)
        data = tar(
            member("x", content=b"0\n".ljust(512, b"\0"), pax_headers={**headers, "GNU.sparse.realsize": str(size)})
        )
        with suppress(StorageError, OSError):  # file systems differ in how long a file may be
            unpack(data, into)
        if (into / "s").exists():
            assert (into / "s").stat().st_blocks < 1000


# --- owners


@pytest.mark.root
def test_owners_are_mapped(tmp_path: Path) -> None:
    mappings = IdMappings(
        uids=(IdRange(container=0, host=100_000, size=1000),), gids=(IdRange(container=0, host=200_000, size=1000),)
    )
    data = tar(member("a/f", uid=5, gid=6), link("a/l", "f", uid=7, gid=8))
    (tmp_path / "t").mkdir()
    apply(io.BytesIO(data), str(tmp_path / "t"), deletions=ERASE, mappings=mappings)
    owners = {
        name: ((tmp_path / "t" / name).lstat().st_uid, (tmp_path / "t" / name).lstat().st_gid)
        for name in ("a", "a/f", "a/l")
    }
    assert owners == {"a": (100_000, 200_000), "a/f": (100_005, 200_006), "a/l": (100_007, 200_008)}
    (tmp_path / "u").mkdir()
    with pytest.raises(RefusedEntry, match="container ID 5000 cannot be mapped to a host ID"):
        apply(io.BytesIO(tar(member("f", uid=5000))), str(tmp_path / "u"), deletions=ERASE, mappings=mappings)


def as_ordinary(work: Callable[[Path], None], tmp_path: Path) -> None:
    """Run `work` as an ordinary user in a directory of his: in a child that is nobody, when this is root."""
    mine = tmp_path / "mine"
    mine.mkdir()
    if os.geteuid() != 0:
        work(mine)
        return
    os.chown(mine, NOBODY, NOBODY)
    for path in tmp_path.parents:
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work(mine)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_ordinary_user_fills_closed_directories(tmp_path: Path) -> None:
    def work(mine: Path) -> None:
        data = tar(
            directory("closed", mode=0),
            directory("closed/read-only", mode=0o555),
            member("closed/read-only/f", mode=0, content=b"x", pax_headers={"SCHILY.xattr.user.a": "1"}),
            directory("later/sub", mode=0o500, mtime=5),
            directory("later", mode=0o100),
            link("l", "later"),
            member("l/g"),
            member("l/sub/g"),
        )
        unpack(data, mine / "t")
        assert stat.S_IMODE((mine / "t/closed").stat().st_mode) == 0
        assert stat.S_IMODE((mine / "t/later").stat().st_mode) == 0o100
        assert stat.S_IMODE((mine / "t/later/sub").stat().st_mode) == 0o500
        assert (mine / "t/later/sub").stat().st_mtime == 5
        (mine / "t/closed").chmod(0o700)
        assert stat.S_IMODE((mine / "t/closed/read-only").stat().st_mode) == 0o555
        assert stat.S_IMODE((mine / "t/closed/read-only/f").stat().st_mode) == 0
        (mine / "t/closed/read-only").chmod(0o700)
        (mine / "t/later").chmod(0o700)

    as_ordinary(work, tmp_path)


FOREIGN: dict[str, Member] = {
    "owner": member("f", uid=1),
    "group": member("f", gid=1),
    "owner of a link": link("l", "x", uid=1),
    "device": member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "trusted": member("f", pax_headers={"SCHILY.xattr.trusted.a": "1"}),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_an_ordinary_user_is_told_what_he_may_not(case: str, tmp_path: Path) -> None:
    def work(mine: Path) -> None:
        info, content = FOREIGN[case]
        info.uid = os.getuid() if "owner" not in case else 1
        info.gid = os.getgid() if case != "group" else 1
        with pytest.raises(NotPermitted, match=info.name) as caught:
            unpack(tar((info, content)), mine / "t")
        assert "ignore_chown_errors" in caught.value.hint
        applied = unpack(tar((info, content)), mine / "squashed", squash=True)
        assert applied.left_out == (case in ("device", "trusted"))
        assert all(path.lstat().st_uid == os.getuid() for path in (mine / "squashed").rglob("*"))

    as_ordinary(work, tmp_path)
