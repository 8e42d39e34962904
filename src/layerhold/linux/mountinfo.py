"""What is mounted where, as /proc/self/mountinfo tells it: without ctypes, since every start asks."""

from __future__ import annotations

import os


class Mount:
    """A file system that is mounted on `point`; `kind` names what it is ("ext4")."""

    __slots__ = ("_options", "_source", "kind", "point")

    def __init__(self, point: str, kind: str, source: bytes = b"", options: bytes = b"") -> None:
        self.point = point
        self.kind = kind
        self._source = source
        self._options = options

    @property
    def source(self) -> str:
        """What it was mounted from."""
        return os.fsdecode(_unescaped(self._source))

    @property
    def options(self) -> list[str]:
        """The options of the file system, which are the same wherever it is mounted."""
        return os.fsdecode(self._options).split(",")


def mount_points() -> set[str]:
    """List where something is mounted in this mount namespace."""
    return {mount.point for mount in _mounts()}


def all_points() -> list[str]:
    """List the same, the last one that was mounted first, and each point once for every mount that is on it."""
    return [mount.point for mount in reversed(_mounts())]


def points_of(kind: str) -> list[str]:
    """List where file systems of a kind ("selinuxfs") are mounted."""
    return [mount.point for mount in _mounts() if mount.kind == kind]


def filesystem_of(path: str) -> str:
    """Name the kind of file system that `path` is on ("ext4"), or "" if its mount cannot be seen from here."""
    return mount_of(path).kind


def mount_of(path: str) -> Mount:
    """Find what `path` is on; of a mount that cannot be seen from here nothing is known."""
    path = os.path.realpath(path)
    best = Mount("", "")
    for mount in _mounts():
        point = mount.point
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.point):  # of several on one point the last is on top
            best = mount
    return best


def _mounts() -> list[Mount]:
    """Give the file systems in the order of mounting."""
    with open("/proc/self/mountinfo", "rb") as file:
        return list(map(_parsed, file))


def _parsed(line: bytes) -> Mount:
    """Read a line. The options at its end are as the file system words them: 9p, for one, leaves spaces as they are."""
    fields = line.rstrip(b"\n").split(b" ")
    dash = fields.index(b"-", 6)
    kind, source = fields[dash + 1 : dash + 3]
    point = os.fsdecode(_unescaped(fields[4]))
    return Mount(point, kind.decode(), source, b" ".join(fields[dash + 3 :]))


def _unescaped(field: bytes) -> bytes:
    """Undo the octal escapes."""
    if b"\\" not in field:
        return field
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])
