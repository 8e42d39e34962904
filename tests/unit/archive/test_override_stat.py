"""What files are meant to be, written beside them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerhold.archive.apply import apply
from layerhold.archive.override_stat import KEY, KEYS, Override, chosen, is_overridden, parse, stat_of
from layerhold.archive.whiteouts import FUSE_MARKS
from layerhold.ids.mappings import IdMappings, IdRange

IDS = st.integers(0, (1 << 32) - 2)
MODES = st.integers(0, 0o7777)
NUMBERS = st.integers(0, 1 << 20)
PLAIN = st.builds(
    Override,
    uid=IDS,
    gid=IDS,
    mode=MODES,
    kind=st.sampled_from([0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK]),
)
DEVICES = st.builds(
    Override,
    uid=IDS,
    gid=IDS,
    mode=MODES,
    kind=st.sampled_from([stat.S_IFCHR, stat.S_IFBLK]),
    major=NUMBERS,
    minor=NUMBERS,
)


@given(PLAIN | DEVICES)
def test_what_is_written_is_read(override: Override) -> None:
    assert parse(override.text()) == override


@given(
    st.binary(max_size=40) | st.lists(st.sampled_from([b"0", b":", b"7", b"-", b"char", b"file", b"9"])).map(b"".join)
)
def test_whatever_stands_there_is_read_or_passed_over(value: bytes) -> None:
    found = parse(value)
    assert found is None or parse(found.text()) == found


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (b"0:0:0755:dir", Override(uid=0, gid=0, mode=0o755, kind=stat.S_IFDIR)),
        (b"10:20:4644", Override(uid=10, gid=20, mode=0o4644)),
        (b"5:6:100755", Override(uid=5, gid=6, mode=0o755)),
        (b"0:0:40700", Override(uid=0, gid=0, mode=0o700)),
        (b"0:0:0666:char-1-3", Override(uid=0, gid=0, mode=0o666, kind=stat.S_IFCHR, major=1, minor=3)),
    ],
)
def test_forms_of_go_and_of_fuse_overlayfs(value: bytes, meant: Override) -> None:
    assert parse(value) == meant


@pytest.mark.parametrize(
    "value",
    [b"", b"0:0", b"0:0:888", b"x:0:755", b"-1:0:755", b"0:4294967295:755", b"0:0:0755:thing", b"0:0:0755:char",
     b"0:0:0755:char-1", b"0:0:0755:file-1-2", b"0:0:0755:char-1-99999999999", b"0:0:0755:file:x", b"0:0:0o755"],
)  # fmt: skip
def test_malformed_ones_say_nothing(value: bytes) -> None:
    assert parse(value) is None


def test_fuse_overlayfs_changes_its_own_alone() -> None:
    one, other = Override(uid=1, gid=1, mode=0o600), Override(uid=2, gid=2, mode=0o600)
    assert chosen({KEYS[0]: one.text(), KEY: other.text()}) == one
    assert chosen({KEYS[0]: b"nonsense", KEY: other.text()}) == other
    assert chosen({}) is None


def test_only_what_is_meant_replaces_what_is_there(tmp_path: Path) -> None:
    info = os.stat(tmp_path)
    seen = Override(uid=7, gid=8, mode=0o1777, kind=stat.S_IFCHR, major=1, minor=3).over(info)
    assert (seen.st_uid, seen.st_gid, seen.st_mode) == (7, 8, stat.S_IFCHR | 0o1777)
    assert seen.st_rdev == os.makedev(1, 3)
    assert (seen.st_ino, seen.st_dev, seen.st_nlink, seen.st_size) == (
        info.st_ino, info.st_dev, info.st_nlink, info.st_size
    )  # fmt: skip
    assert (seen.st_mtime_ns, seen.st_atime_ns) == (info.st_mtime_ns, info.st_atime_ns)


def a_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, mode, owner, link in (
            ("d", tarfile.DIRTYPE, 0o700, (1, 2), ""),
            ("d/file", tarfile.REGTYPE, 0o4755, (3, 4), ""),
            ("pipe", tarfile.FIFOTYPE, 0o640, (5, 6), ""),
            ("null", tarfile.CHRTYPE, 0o666, (0, 0), ""),
            ("link", tarfile.SYMTYPE, 0o777, (7, 8), "d/file"),
            ("hard", tarfile.LNKTYPE, 0o4755, (3, 4), "d/file"),
            ("hard-link", tarfile.LNKTYPE, 0o777, (7, 8), "link"),
            (".wh.gone", tarfile.REGTYPE, 0, (0, 0), ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = kind, mode, link
            info.uid, info.gid = owner
            info.devmajor, info.devminor = (1, 3) if kind == tarfile.CHRTYPE else (0, 0)
            info.size = 3 if name == "d/file" else 0
            archive.addfile(info, io.BytesIO(b"abc"))
    return stream.getvalue()


def unpacked(top: Path, mappings: IdMappings | None = None) -> dict[str, bytes]:
    apply(io.BytesIO(a_tar()), str(top), deletions=FUSE_MARKS, mask=0o750, mappings=mappings)
    paths = [path for path in top.rglob("*") if not path.is_symlink() and os.listxattr(path)]
    return {str(path.relative_to(top)): os.getxattr(path, KEY) for path in paths}


def test_entries_with_a_mask(tmp_path: Path) -> None:
    assert unpacked(tmp_path) == {
        "d": b"1:2:0700:dir",
        "d/file": b"3:4:4755:file",
        "hard": b"3:4:4755:file",
        "pipe": b"5:6:0640:pipe",
        "null": b"0:0:0666:char-1-3",
    }
    for path in tmp_path.rglob("*"):
        info = path.lstat()
        if path.name == ".wh.gone" or path.is_symlink():
            continue
        assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o750, os.geteuid())
        assert path.is_dir() or path.is_file()
    assert (tmp_path / "hard").samefile(tmp_path / "d/file")
    assert (tmp_path / "d/file").read_bytes() == b"abc"
    assert os.readlink(tmp_path / "link") == "d/file"


def test_owners_with_a_mask_are_those_of_the_host(tmp_path: Path) -> None:
    ranges = (IdRange(container=0, host=1000, size=10),)
    found = unpacked(tmp_path, IdMappings(uids=ranges, gids=ranges))
    assert found["d/file"] == b"1003:1004:4755:file"


def test_a_directory_that_is_meant_to_be_another(tmp_path: Path) -> None:
    assert not is_overridden(str(tmp_path))
    assert stat_of(str(tmp_path)) == os.stat(tmp_path)
    os.setxattr(tmp_path, KEY, b"7:8:0711:dir")
    assert is_overridden(str(tmp_path))
    assert (stat_of(str(tmp_path)).st_uid, stat_of(str(tmp_path)).st_mode) == (7, stat.S_IFDIR | 0o711)
