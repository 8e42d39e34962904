"""A tree as a tar: what other programs read from it is the tree, and each byte is as Go writes it."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerhold.archive import export
from layerhold.archive.changes import Change, between
from layerhold.archive.tar import Entry
from layerhold.archive.whiteouts import ERASE, OVERLAY_MARKS
from layerhold.errors import DamagedLayer, StorageError
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.testing import trees
from layerhold.tree.root import Root
from tests import stores
from tests.unit.archive import tars
from tests.unit.archive.trees import OLD, OPAQUE, PREFIX, WHITEOUT, attribute, copied, make, settle

OWNER = {"uid": os.getuid(), "gid": os.getgid()}


def written(tree: Path, **how: Any) -> bytes:
    """A whole tree as a tar, or a layer if `lowers` are given."""
    how = {"changes": None, "deletions": ERASE, "lowers": None, "xattr_prefix": PREFIX, **how}
    return b"".join(export.tar(str(tree), **how))


def layer(tree: Path, *lowers: Path) -> bytes:
    return written(tree, deletions=OVERLAY_MARKS, lowers=[str(lower) for lower in lowers])


def entries(data: bytes) -> dict[bytes, tuple[Entry, bytes]]:
    return {entry.name: (entry, content) for entry, content in tars.read(data)}


def names(data: bytes) -> list[bytes]:
    return [entry.name for entry, _ in tars.read(data)]


# -- the bytes


def file(name: bytes, data: bytes = b"", **fields: Any) -> bytes:
    return tars.file(name, data, **{"mtime": OLD // 10**9, **OWNER, **fields})


def extended(name: bytes, *records: tuple[bytes, bytes]) -> bytes:
    """A header of PAX records as Go writes it: the numbers are all zero, and there are none of devices."""
    data = b"".join(tars.record(*record) for record in records)
    head = tars.header(name, b"x", size=len(data), mode=0, major=bytes(8), minor=bytes(8))
    return head + tars.padded(data)


def test_a_tree_byte_for_byte(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"d/f": b"content", "d-x": b"", "l": "d/f"})
    for path, mode in (("d", 0o1755), ("d/f", 0o4755), ("d-x", 0o600)):
        (tree / path).chmod(mode)
    assert written(tree) == (
        file(b"d/", kind=b"5", mode=0o1755)
        + file(b"d/f", b"content", mode=0o4755)
        + file(b"d-x", mode=0o600)
        + file(b"l", kind=b"2", mode=0o777, link=b"d/f")
        + tars.END
    )


@pytest.mark.parametrize(
    ("name", "prefix", "last"),
    [
        (b"n" * 100, b"", b"n" * 100),
        (b"d" * 50 + b"/" + b"n" * 50, b"d" * 50, b"n" * 50),
        (b"d" * 155 + b"/" + b"n" * 100, b"d" * 155, b"n" * 100),
        (b"d/" * 80 + b"n", b"d/" * 77 + b"d", b"d/d/n"),
        (b"d" * 100 + b"/" + b"n" * 50 + b"/", b"d" * 100, b"n" * 50 + b"/"),
    ],
)
def test_names_that_fit(name: bytes, prefix: bytes, last: bytes) -> None:
    made = export.header(name, b"0", mode=0o644, owner=(0, 0), mtime=0)
    assert made == tars.header(last, prefix=prefix)


@pytest.mark.parametrize(
    ("name", "record_name", "kept"),
    [
        (b"n" * 101, b"PaxHeaders.0/" + b"n" * 87, b"n" * 100),
        (b"d/" + b"n" * 101, b"d/PaxHeaders.0/" + b"n" * 85, b"d/" + b"n" * 98),
        ("é".encode(), b"PaxHeaders.0", b""),
        (b"d/\xffx", b"d/PaxHeaders.0/x", b"d/x"),
        (b"d/\xff/", b"d//PaxHeaders.0", b"d//"),
        (b"n" * 101 + b"/", b"n" * 100, b"n" * 100),
        # A cut that ends in a slash would make old readers take the file for a directory.
        (b"n" * 99 + b"/" + b"m" * 101, b"n" * 99, b"n" * 99),
        (b"d" * 156 + b"/n", b"d" * 100, b"d" * 100),
    ],
)
def test_names_that_do_not_fit(name: bytes, record_name: bytes, kept: bytes) -> None:
    made = export.header(name, b"0", mode=0o644, owner=(0, 0), mtime=0)
    assert made == extended(record_name, (b"path", name)) + tars.header(kept)
    assert tars.only(made + tars.END).name == name


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        (b"t" * 100, None),
        (b"t" * 101, b"t" * 100),
        (b"\xc3\xbc", b""),
        (b"t" * 99 + b"/x", b"t" * 99),
        (b"t" * 97 + b"///x", b"t" * 97 + b"\0//"),
    ],
)
def test_targets_of_links(target: bytes, kept: bytes | None) -> None:
    made = export.header(b"l", b"2", mode=0o777, owner=(0, 0), mtime=0, target=target)
    plain = tars.header(b"l", b"2", mode=0o777, link=target if kept is None else kept)
    assert made == (plain if kept is None else extended(b"PaxHeaders.0/l", (b"linkpath", target)) + plain)


@pytest.mark.parametrize(
    ("fields", "records", "kept"),
    [
        ({"owner": (0o7777777, 0)}, [], {"uid": 0o7777777}),
        ({"owner": (0o10000000, 1)}, [(b"uid", b"2097152")], {"gid": 1}),
        ({"owner": (1, 1 << 31)}, [(b"gid", b"2147483648")], {"uid": 1}),
        ({"size": 0o77777777777}, [], {"size": 0o77777777777}),
        ({"size": 1 << 33}, [(b"size", b"8589934592")], {}),
        ({"mtime": -1}, [(b"mtime", b"-1")], {}),
        ({"mtime": 1 << 33}, [(b"mtime", b"8589934592")], {}),
        (
            {"xattrs": {b"user.b": b"\0\n", b"user.a": b""}},
            [(b"SCHILY.xattr.user.a", b""), (b"SCHILY.xattr.user.b", b"\0\n")],
            {},
        ),
        ({"device": (0o7777, 1048575)}, [], {"major": 0o7777, "minor": 1048575}),
    ],
)
def test_numbers_and_attributes(fields: dict[str, Any], records: list[tuple[bytes, bytes]], kept: Any) -> None:
    made = export.header(b"d/n", b"0", **{"mode": 0o644, "owner": (0, 0), "mtime": 0, **fields})
    before = extended(b"d/PaxHeaders.0/n", *records) if records else b""
    assert made == before + tars.header(b"d/n", **kept)


def test_a_name_that_would_fit_is_in_the_records_where_there_are_any() -> None:
    name = b"d" * 60 + b"/" + b"n" * 60
    made = export.header(name, b"0", mode=0o644, owner=(0, 0), mtime=-1)
    before = extended(b"d" * 60 + b"/PaxHeaders.0/" + b"n" * 26, (b"mtime", b"-1"), (b"path", name))
    assert made == before + tars.header(name[:100])


@pytest.mark.parametrize("length", [*range(80, 105), 990, 991, 992, 993])
def test_the_length_of_a_record_counts_itself(length: int) -> None:
    made = export.header(b"n", b"0", mode=0, owner=(0, 0), mtime=0, xattrs={b"user.x": b"v" * length})
    assert tars.only(made + tars.END).xattrs == {b"user.x": b"v" * length}


# -- what is in it


def test_gnu_tar_makes_the_same_tree_of_it(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"d/f": b"x" * 700, "d/empty": b"", "l": "nowhere", "d/é": b"e", "n" * 120: b"long"})
    (tree / "closed").mkdir(mode=0o500)
    os.link(tree / "d/f", tree / "again")
    os.link(tree / "l", tree / "l2", follow_symlinks=False)
    os.mkfifo(tree / "fifo", 0o640)
    attribute(tree / "d/f", "user.note", b"n\0te")
    attribute(tree / "d", "user.note", b"of a directory")
    settle(tree)
    (tmp_path / "tar").write_bytes(written(tree))
    again = stores.gnu_extract(tmp_path / "tar", tmp_path / "again")
    assert trees.differences(found(tree), found(again)) == []


def found(tree: Path) -> dict[bytes, trees.Row]:
    return {path: row for path, row in trees.rows(tree).items() if path}


@pytest.mark.root
def test_owners_devices_and_capabilities(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"cap": b"", "ima": b"", "hidden": b"", "own": b""})
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(tree / "cap", "security.capability", capability)
    os.setxattr(tree / "hidden", "trusted.note", b"for this host")
    os.setxattr(tree / "hidden", "user.overlay.origin", b"for this host")
    os.link(tree / "cap", tree / "cap2")
    os.mknod(tree / "dev", stat.S_IFBLK | 0o640, os.makedev(259, 70000))
    os.chown(tree / "own", 1234, 4_000_000_000)
    data = entries(written(tree))
    assert data[b"cap"][0].xattrs == data[b"cap2"][0].xattrs == {b"security.capability": capability}
    assert data[b"hidden"][0].xattrs == {}
    device, own = data[b"dev"][0], data[b"own"][0]
    assert (device.kind, device.major, device.minor, device.mode) == (b"4", 259, 70000, 0o640)
    assert (own.uid, own.gid) == (1234, 4_000_000_000)


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make(tmp_path / "t", {"f": b""})
    monkeypatch.chdir(tree)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("s")
        assert names(written(tree)) == [b"f"]


def test_times_are_cut_to_seconds(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"f": b"", "before": b""})
    os.utime(tree / "f", ns=(0, OLD + 999_999_999))
    os.utime(tree / "before", ns=(0, -1))
    data = entries(written(tree))
    assert data[b"f"][0].mtime == OLD
    assert data[b"before"][0].mtime == -(10**9)


def test_large_and_small_files_come_in_blocks_of_some_size(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"big": os.urandom(5 << 20), **{f"s{n}": b"x" for n in range(2000)}})
    chunks = list(export.tar(str(tree), changes=None, deletions=ERASE, lowers=None))
    assert max(map(len, chunks)) <= 1 << 20
    assert len(chunks) < 40  # of 7 MiB: 256 KiB each, and a few smaller ones
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        content = archive.extractfile("big")
        assert content is not None
        assert content.read() == (tree / "big").read_bytes()


# -- what is gone


def test_the_marks_of_a_layer(tmp_path: Path) -> None:
    lower = make(tmp_path / "lower", {"d/x": b"", "o/x": b"", "gone": b""})
    tree = make(tmp_path / "t", {"d/x": WHITEOUT, "gone": WHITEOUT, "o": {OPAQUE: b"y"}, "o/n": b"n", "p/q": b""})
    attribute(tree / "p", OPAQUE, b"y")  # hides nothing
    (tree / "o").chmod(0o3750)
    assert layer(tree, lower) == (
        file(b"d/", kind=b"5", mode=0o755)
        + file(b"d/.wh.x", mode=0)
        + file(b".wh.gone", mode=0)
        + file(b"o/", kind=b"5", mode=0o3750)
        + file(b"o/.wh..wh..opq", mode=0o750, mtime=0)
        + file(b"o/n", b"n")
        + file(b"p/", kind=b"5", mode=0o755)
        + file(b"p/q")
        + tars.END
    )


def test_whiteouts_of_one_inode_name_the_first_as_go_has_them(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"a": WHITEOUT, "d/c": b""})
    os.link(tree / "a", tree / "b", follow_symlinks=False)
    os.link(tree / "a", tree / "d/b", follow_symlinks=False)
    links = {
        entry.name: entry.linkname
        for entry, _ in tars.read(written(tree, deletions=OVERLAY_MARKS, lowers=()))
        if b".wh." in entry.name
    }
    assert links == {b".wh.a": b"", b".wh.b": b"a", b"d/.wh.b": b"a"}


def test_without_lowers_nothing_is_opaque(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"o": {OPAQUE: b"y"}, "o/n": b"n"})
    assert names(layer(tree)) == [b"o/", b"o/n"]


def test_changes_of_a_whole_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.9)
    old = make(tmp_path / "old", {"a/b": b"b", "a/x": b"", "a-b": b"", "gone/in": b"", "same": b"s"})
    new = copied(old, tmp_path / "new")
    (new / "a/x").unlink()
    (new / "a-b").write_bytes(b"more")
    (new / "gone/in").unlink()
    (new / "gone").rmdir()
    settle(new)
    changes = between(str(old), str(new), deletions=ERASE, lowers=None)
    assert written(new, changes=changes) == (
        file(b"a/", kind=b"5", mode=0o755)
        + file(b"a-b", b"more")
        + file(b"a/.wh.x", mode=0, mtime=1_700_000_000, uid=0, gid=0)
        + file(b".wh.gone", mode=0, mtime=1_700_000_000, uid=0, gid=0)
        + tars.END
    )


def test_what_went_since_the_changes_were_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="x"):
        written(make(tmp_path / "t", {}), changes=[Change(b"/x", 1)])


# -- who owns it in the container


def test_owners_are_those_of_the_container(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"d/f": b"", "gone": WHITEOUT})
    maps = IdMappings(
        uids=(IdRange(container=5, host=os.getuid(), size=1),), gids=(IdRange(container=6, host=os.getgid(), size=1),)
    )
    data = [entry for entry, _ in tars.read(written(tree, deletions=OVERLAY_MARKS, lowers=(), mappings=maps))]
    assert {(entry.uid, entry.gid) for entry in data} == {(5, 6)}


def test_an_owner_that_the_maps_do_not_cover_is_an_error_but_not_for_whiteouts(tmp_path: Path) -> None:
    nobody = IdMappings(uids=(IdRange(container=0, host=os.getuid() + 1, size=1),), gids=())
    gone = make(tmp_path / "gone", {"gone": WHITEOUT})
    ((entry, _),) = tars.read(written(gone, deletions=OVERLAY_MARKS, lowers=(), mappings=nobody))
    assert (entry.name, entry.uid, entry.gid) == (b".wh.gone", 0, 0)
    with pytest.raises(StorageError, match=rf'"d": host ID {os.getuid()} cannot be mapped to a container ID'):
        written(make(tmp_path / "t", {"d/f": b""}), mappings=nobody)


# -- what cannot be written


SIZES = [1, 512, 1 << 20, (2 << 20) - 1, (1 << 20) + 1]


def changing(tree: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give files in `tree` another size between the look at them and their opening."""
    opened = Root.open_file

    def changed(root: Root, path: bytes, mode: int = 0) -> int:
        os.truncate(tree / os.fsdecode(path), size)
        return opened(root, path, mode)

    monkeypatch.setattr(Root, "open_file", changed)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_shrinks_is_an_error(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make(tmp_path / "t", {"d/f": b"x" * size})
    changing(tree, size - 1, monkeypatch)
    with pytest.raises(DamagedLayer, match='"d/f" became shorter while it was read'):
        written(tree)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_grows_is_cut(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make(tmp_path / "t", {"d/f": b"x" * size})
    before = written(tree)
    changing(tree, size + 1, monkeypatch)
    assert written(tree)[1024 : 1024 + size] == before[1024 : 1024 + size] == b"x" * size


def test_an_attribute_that_no_record_can_name_is_an_error(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"d/f": b""})
    attribute(tree / "d/f", "user.a=b", b"")
    with pytest.raises(StorageError, match=r'"d/f": .*"="'):
        written(tree)


def test_closing_early_closes_everything(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"d/f": bytes(3 << 20), "g": b""})
    before = stores.descriptors()
    chunks = export.tar(str(tree), changes=None, deletions=OVERLAY_MARKS, lowers=[str(tree)])
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert stores.descriptors() == before


# -- an ordinary user


def test_an_ordinary_user_reads_what_he_may_not(tmp_path: Path) -> None:
    old = make(tmp_path / "old", {"closed/in/secret": b"old", "closed/same": b""})
    new = make(tmp_path / "new", {"closed/in/secret": b"x", "closed/same": b""})
    attribute(new / "closed/in/secret", "user.note", b"n")
    modes = {"closed/in/secret": 0, "closed/in": 0o300, "closed/same": 0, "closed": 0o555}
    settle(new)
    for top in (old, new):
        for path, mode in modes.items():
            (top / path).chmod(mode)
    give_to_nobody(tmp_path)

    def work() -> None:
        for changes in (None, between(str(old), str(new), **how)):
            data = entries(b"".join(export.tar(str(new), changes=changes, **how)))
            secret, content = data[b"closed/in/secret"]
            assert (content, secret.xattrs) == (b"x", {b"user.note": b"n"})
            assert {name: entry.mode for name, (entry, _) in data.items() if name != b"closed/same"} == {
                b"closed/": 0o555,
                b"closed/in/": 0o300,
                b"closed/in/secret": 0,
            }

    how: dict[str, Any] = {"deletions": ERASE, "lowers": None}
    as_ordinary(work)
    for top in (old, new):
        for path, mode in reversed(modes.items()):
            assert stat.S_IMODE((top / path).stat().st_mode) == mode
            (top / path).chmod(0o700)


def give_to_nobody(folder: Path) -> None:
    """Let an ordinary user own all in `folder` and come to it, when this is root."""
    if os.geteuid() != 0:
        return
    for path in folder.rglob("*"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    for path in (folder, *folder.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)


def as_ordinary(work: Callable[[], None]) -> None:
    """Run `work` as an ordinary user: in a child that is nobody, when this is root."""
    if os.geteuid() != 0:
        work()
        return
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
