"""A tree of all kinds of files with several owners, and what is to come of it when these change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.testing import trees

FIRST = IdMappings(
    uids=(IdRange(container=0, host=100000, size=1000),), gids=(IdRange(container=0, host=200000, size=1000),)
)
SECOND = IdMappings(uids=(IdRange(container=0, host=500000, size=500),), gids=FIRST.gids)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
TIME = 978307200_123456789
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def fill(tree: Path) -> Path:
    """A tree of all kinds of files, with owners 0 to 12."""
    (tree / "d/deep/er").mkdir(parents=True)
    (tree / "plain").write_text("12345")
    (tree / "program").write_text("run")
    (tree / "capable").write_text("net")
    (tree / "d/first").write_text("linked")
    os.link(tree / "d/first", tree / "d/second")
    os.link(tree / "d/first", tree / "d/deep/third")
    (tree / "outside").symlink_to(tree.parent / "other")
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for number, name in enumerate(
        ("", "plain", "program", "capable", "d", "d/deep", "d/first", "outside", "pipe", "null")
    ):
        os.chown(tree / name, number, number + 3, follow_symlinks=False)
    (tree / "program").chmod(0o6755)
    (tree / "pipe").chmod(0o4644)
    (tree / "d").chmod(0o3775)
    os.setxattr(tree / "capable", "security.capability", CAPABILITY)
    os.setxattr(tree / "plain", "user.note", b"kept")
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, ns=(TIME, TIME), follow_symlinks=False)
    return tree


def look(tree: Path) -> dict[bytes, trees.Row]:
    return trees.rows(tree, skip_xattrs=r"trusted\.overlay\.")


def expected(
    before: dict[bytes, trees.Row], uid: int, gid: int, *, skip: bytes | None = None
) -> dict[bytes, trees.Row]:
    """The tree with `uid` and `gid` added to its owners."""
    return {
        path: row if path == skip else row._replace(uid=row.uid + uid, gid=row.gid + gid)
        for path, row in before.items()
    }
