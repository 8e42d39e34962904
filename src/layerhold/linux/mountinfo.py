"""What is mounted where, as /proc/self/mountinfo tells it: without ctypes, since every start asks."""

from __future__ import annotations

import os


def mount_points() -> set[str]:
    """List where something is mounted in this mount namespace."""
    return {mount[0] for mount in _mounts()}


def all_points() -> list[str]:
    """List the same, the last one that was mounted first, and each point once for every mount that is on it."""
    return [mount[0] for mount in reversed(_mounts())]


def points_of(kind: str) -> list[str]:
    """List where file systems of a kind ("selinuxfs") are mounted."""
    return [mount[0] for mount in _mounts() if mount[1] == kind]


def filesystem_of(path: str) -> str:
    """Name the kind of file system that `path` is on ("ext4"), or "" if its mount cannot be seen from here."""
    return _mount_of(path)[1]


def source_of(path: str, kind: str) -> str:
    """Say what the file system that `path` is on was mounted from, or "" if it is none of the kind."""
    _point, found, source, _options = _mount_of(path)
    return source if found == kind else ""


def options_of(path: str) -> list[str]:
    """Give the options of the file system that `path` is on, which are the same wherever it is mounted."""
    return _mount_of(path)[3].split(",")


def _mount_of(path: str) -> tuple[str, str, str, str]:
    path = os.path.realpath(path)
    best = ("", "", "", "")
    for mount in _mounts():
        point = mount[0]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):  # of several on one point the last is on top
            best = mount
    return best


def _mounts() -> list[tuple[str, str, str, str]]:
    """Give mount points, kinds, sources and options of the file systems, in the order of mounting."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields = line.rstrip(b"\n").split(b" ")
            kind, source, options = fields[fields.index(b"-", 6) + 1 :]
            point = os.fsdecode(_unescaped(fields[4]))
            found.append((point, kind.decode(), os.fsdecode(_unescaped(source)), os.fsdecode(options)))
    return found


def _unescaped(field: bytes) -> bytes:
    """Undo the octal escapes."""
    if b"\\" not in field:
        return field
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])
