"""Trees as they are on disk, entry by entry, so that two of them can be compared."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Row(NamedTuple):
    """All that a tar says of an entry, as it is on disk."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    device: int
    link: bytes
    content: str
    xattrs: tuple[tuple[str, bytes], ...]
    same_as: bytes


KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


def rows(
    tree: Path | str, *, content: bool = True, skip_xattrs: str = r"(trusted|user)\.overlay\."
) -> dict[bytes, Row]:
    """Give every entry of a tree by its path (b"": the top).

    `content` is the SHA-256 of a file's, in hex; `same_as` the first name of its group of hard links. Attributes whose
    names begin with what matches `skip_xattrs` are left out. Raises OSError.
    """
    groups: dict[tuple[int, int], bytes] = {}
    found = {}
    for path in sorted(_walk(os.fsencode(tree), b"")):
        found[path] = _row(os.path.join(os.fsencode(tree), path), path, groups, content, skip_xattrs)
    return found


def differences(one: dict[bytes, Row], other: dict[bytes, Row], *, ignore: Sequence[str] = ()) -> list[str]:
    """Say what differs between two trees, a line each; `ignore` names fields of `Row`."""
    found = []
    for path in sorted(one.keys() | other.keys()):
        if path not in one or path not in other:
            found.append(f"{path!r}: only in the {'first' if path in one else 'second'}")
            continue
        for field, left, right in zip(Row._fields, one[path], other[path], strict=True):
            if left != right and field not in ignore:
                found.append(f"{path!r}: {field} {left!r} != {right!r}")
    return found


def _walk(top: bytes, inside: bytes) -> Iterator[bytes]:
    yield inside
    for entry in os.scandir(os.path.join(top, inside)):
        path = os.path.join(inside, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(top, path)
        else:
            yield path


def _row(full: bytes, path: bytes, groups: dict[tuple[int, int], bytes], content: bool, skip: str) -> Row:
    status = os.lstat(full)
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "other")
    names = os.listxattr(full, follow_symlinks=False)
    digest = ""
    if kind == "file" and content:
        with open(full, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Row(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == "file" else 0,
        mtime_ns=status.st_mtime_ns,
        device=status.st_rdev,
        link=os.readlink(full) if kind == "link" else b"",
        content=digest,
        xattrs=tuple(
            (name, os.getxattr(full, name, follow_symlinks=False)) for name in sorted(names) if not re.match(skip, name)
        ),
        same_as=groups.setdefault((status.st_dev, status.st_ino), path) if kind != "dir" else path,
    )
