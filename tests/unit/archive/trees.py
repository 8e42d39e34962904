"""Small trees for tests, written down as a dictionary."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

WHITEOUT = "whiteout"
PREFIX = "user.overlay."  # as in an ordinary user's store, so that these tests need no root
OPAQUE = PREFIX + "opaque"
OLD = 1_600_000_000 * 10**9


def make(top: Path, tree: Mapping[str, Any]) -> Path:
    """Make a tree: a path and the bytes of a file, a link's target, a dictionary of attributes for a directory.

    All times are the same, so that only what a test changes differs.
    """
    top.mkdir(parents=True, exist_ok=True)
    for name, what in tree.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if what == WHITEOUT:
            whiteout(path)
        elif isinstance(what, bytes):
            path.write_bytes(what)
        elif isinstance(what, str):
            path.symlink_to(what)
        else:
            path.mkdir(exist_ok=True)
            for key, value in what.items():
                attribute(path, key, value)
    settle(top)
    return top


def settle(top: Path) -> None:
    """Give all that is in a tree the same times."""
    for path in sorted((top, *top.rglob("*")), reverse=True):
        os.utime(path, ns=(OLD, OLD), follow_symlinks=False)


def copied(top: Path, into: Path) -> Path:
    shutil.copytree(top, into, symlinks=True)
    return into


def whiteout(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR, 0)
    except PermissionError:
        pytest.skip("this user cannot make whiteouts here (Linux 5.8 lets everyone)")


def attribute(path: Path, key: str, value: bytes) -> None:
    try:
        os.setxattr(path, key, value)
    except OSError as error:
        pytest.skip(f"no {key} on this file system: {error}")
