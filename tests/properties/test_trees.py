"""Any tree comes back from its tar, and any change of a tree from the tar of the change."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from layerhold.archive import changes, export
from layerhold.archive.apply import apply
from layerhold.archive.whiteouts import ERASE
from layerhold.testing.trees import Row, differences, rows
from layerhold.values import Value
from tests import stores

SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
SECOND = 10**9


class Node(Value):
    """What is to be made. The content is told by size and time, for that is how a change of it is found."""

    kind: str
    mode: int
    owner: int
    size: int
    mtime: int
    target: bytes
    xattr: bytes | None
    children: dict[bytes, Node]


@st.composite
def nodes(draw: st.DrawFn, depth: int) -> Node:
    kinds = ["file", "file", "link", "fifo"] + ["dir"] * 2 * (depth > 0)
    kind = draw(st.sampled_from(kinds))
    return Node(
        kind=kind,
        mode=draw(st.sampled_from([0o755, 0o700, 0o600, 0o4711, 0o1777, 0])) | (0o700 if os.geteuid() else 0),
        owner=draw(st.sampled_from([0, 1000, 0o10000000])),
        size=draw(st.sampled_from([0, 1, 511, 512, 513, 70_000])),
        mtime=draw(st.sampled_from([0, 1, SECOND, 1_600_000_000 * SECOND + 5, 9_000_000_000 * SECOND])),
        target=draw(st.sampled_from([b"x", b"../..", b"/", b"t" * 101, b"\xff"])),
        # A directory that is there keeps the attributes that its new entry does not name, as with Go: so all have it.
        xattr=draw(st.sampled_from([b"", b"\0\n=", b"v" * 600] + [None] * (kind != "dir"))),
        children=draw(trees(depth - 1)) if kind == "dir" else {},
    )


NAMES = st.sampled_from(
    [b"a", b"a-", b"a.", b"b", b"\xff\xfe", b"new\nline", "ü".encode(), b"n" * 99, b"n" * 101, b"l" * 255]
)


def trees(depth: int = 3) -> st.SearchStrategy[dict[bytes, Node]]:
    return st.dictionaries(NAMES, nodes(depth), max_size=4)


def make(top: bytes, tree: dict[bytes, Node]) -> None:
    for name, node in tree.items():
        path = top + b"/" + name
        if node.kind == "file":
            Path(os.fsdecode(path)).write_bytes(bytes([node.mtime // SECOND % 251]) * node.size)
        elif node.kind == "link":
            os.symlink(node.target, path)
        elif node.kind == "fifo":
            os.mkfifo(path)
        else:
            os.mkdir(path)
            make(path, node.children)
        if os.geteuid() == 0:
            os.chown(path, node.owner, node.owner, follow_symlinks=False)
        if node.kind != "link":
            os.chmod(path, node.mode)
        if node.kind in ("file", "dir") and node.xattr is not None:
            os.setxattr(path, b"user.note", node.xattr)
        os.utime(path, ns=(0, node.mtime), follow_symlinks=False)


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="layerhold-trees-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_kept(tree: Path, *, links: bool) -> dict[bytes, Row]:
    """A tree with what a tar keeps of it: whole seconds, nothing of the top itself."""
    found = rows(tree)
    del found[b""]
    return {
        path: row._replace(mtime_ns=row.mtime_ns // SECOND, same_as=row.same_as if links else b"")
        for path, row in found.items()
    }


@SETTINGS
@given(trees(), st.lists(st.integers(0, 50), max_size=3))
def test_gnu_tar_makes_the_same_tree_of_a_tar(tree: dict[bytes, Node], linked: list[int]) -> None:
    with scratch() as folder:
        top = folder / "tree"
        top.mkdir()
        make(os.fsencode(top), tree)
        link_some(top, linked)
        with (folder / "tar").open("wb") as file:
            file.writelines(export.tar(str(top), changes=None, deletions=ERASE, lowers=None))
        again = stores.gnu_extract(folder / "tar", folder / "again")
        assert differences(as_kept(top, links=True), as_kept(again, links=True)) == []


def link_some(top: Path, picks: list[int]) -> None:
    """Give some files another name in the top directory, whose times no tar has."""
    files = sorted(path for path in top.rglob("*") if not stat.S_ISDIR(path.lstat().st_mode))
    for number, pick in enumerate(picks):
        if files:
            os.link(files[pick % len(files)], top / f"linked-{number}", follow_symlinks=False)


@SETTINGS
@given(trees(), trees(), st.sets(NAMES))
def test_a_change_applied_makes_the_new_tree(
    before: dict[bytes, Node], after: dict[bytes, Node], kept: set[bytes]
) -> None:
    after = {**after, **{name: node for name, node in before.items() if name in kept}}
    with scratch() as folder:
        old, new = folder / "old", folder / "new"
        for top, tree in ((old, before), (new, after)):
            top.mkdir()
            make(os.fsencode(top), tree)
        found = list(changes.between(str(old), str(new), deletions=ERASE, lowers=None))
        assert [change.path for change in found] == sorted({change.path for change in found})
        data = b"".join(export.tar(str(new), changes=found, deletions=ERASE, lowers=None))
        apply(io.BytesIO(data), str(old), deletions=ERASE)
        assert differences(as_kept(old, links=False), as_kept(new, links=False)) == []
        assert list(changes.between(str(old), str(new), deletions=ERASE, lowers=None)) == []
