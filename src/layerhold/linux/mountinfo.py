"""What is mounted where, as /proc/self/mountinfo tells it: without ctypes, since every start asks."""

from __future__ import annotations

import os


def mount_points() -> set[str]:
    """List where something is mounted in this mount namespace."""
    return {point for point, _kind, _options in _mounts()}


def all_points() -> list[str]:
    """List the same, the last one that was mounted first, and each point once for every mount that is on it."""
    return [point for point, _kind, _options in reversed(_mounts())]


def points_of(kind: str) -> list[str]:
    """List where file systems of a kind ("selinuxfs") are mounted."""
    return [point for point, found, _options in _mounts() if found == kind]


def filesystem_of(path: str) -> str:
    """Name the kind of file system that `path` is on ("ext4"), or "" if its mount cannot be seen from here."""
    return _mount_of(path)[0]


def options_of(path: str) -> list[str]:
    """Give the options of the file system that `path` is on, which are the same wherever it is mounted."""
    return _mount_of(path)[1].split(",")


def _mount_of(path: str) -> tuple[str, str]:
    path = os.path.realpath(path)
    best, found = "", ("", "")
    for point, kind, options in _mounts():
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of several on one point the last is on top
            best, found = point, (kind, options)
    return found


def _mounts() -> list[tuple[str, str, str]]:
    """Give mount points, kinds and options of the file systems, in the order of mounting."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields = line.split(b" ")
            kind, _source, options = fields[fields.index(b"-", 6) + 1 :]
            found.append((os.fsdecode(_unescaped(fields[4])), kind.decode(), os.fsdecode(options.rstrip(b"\n"))))
    return found


def _unescaped(field: bytes) -> bytes:
    """Undo the octal escapes."""
    if b"\\" not in field:
        return field
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])
