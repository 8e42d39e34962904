"""Layers mounted by a program, `fuse-overlayfs`: where the kernel has no overlay, or does not let this user have it.

    <program> -o lowerdir=...,upperdir=...,workdir=...[,options] <target>

with the home as its working directory, as Go's library calls it. It serves the mount from a process of its own, which
ends with the mount. Owners are mapped by the program, for the whole mount: the files on disk keep those that they have
in the container, also new ones.
"""

from __future__ import annotations

import errno
import os

from layerhold.errors import DriverError
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.drivers.overlay_mount import MountSpec
    from layerhold.ids.mappings import IdMappings, IdRange

PROGRAM = "fuse-overlayfs"
_UNMOUNTERS = ("fusermount3", "fusermount")
_SPECIAL = ":,\\"  # fuse-overlayfs takes the option string apart at these, whatever stands before them


class Call(Value):
    """What the program is told: the option string, and where to mount. `home`: its working directory."""

    program: str
    home: str
    data: str
    target: str


def find() -> str:
    """Find the program in PATH. Raises DriverError, which says what to install."""
    import shutil

    found = shutil.which(PROGRAM)
    if not found:
        raise DriverError(
            f"{PROGRAM} wrote layers of this store, and has to mount them: install {PROGRAM}, or name it by the option "
            "overlay.mount_program"
        )
    return found


def call(
    program: str,
    home: str,
    spec: MountSpec,
    options: Sequence[str],
    mappings: IdMappings | None = None,
    *,
    overridden: bool = False,
) -> Call:
    """Compute how `spec`, made with `options`, is mounted. `overridden`: owners and modes of files are in attributes.

    Raises DriverError for a path that the program cannot be given.
    """
    words = [f"lowerdir={':'.join(_named(lower) for lower in spec.lowers)}"]
    if spec.upper:
        words += [f"upperdir={_named(spec.upper)}", f"workdir={_named(spec.work)}"]
    words += [word for word in options if word and word != "metacopy=on"]
    if not spec.upper and "ro" not in options:
        words.append("ro")
    if mappings is not None:
        words += [*_mapping("uid", mappings.uids), *_mapping("gid", mappings.gids)]
    if overridden:
        words.append("xattr_permissions=2")
    return Call(program=program, home=home, data=",".join(words), target=spec.target)


def _named(path: str) -> str:
    if any(character in path for character in _SPECIAL):
        raise DriverError(f"{path}: a mount program cannot be given a path with one of these in it: {_SPECIAL}")
    return path


def _mapping(kind: str, ranges: Sequence[IdRange]) -> list[str]:
    if not ranges:
        return []
    if len(ranges) == 1 and ranges[0].size == 1:
        return [f"squash_to_{kind}={ranges[0].host}"]
    return [f"{kind}mapping=" + ":".join(f"{one.container}:{one.host}:{one.size}" for one in ranges)]


def mount(wanted: Call) -> None:
    """Mount it. Raises DriverError with the program's words."""
    import subprocess

    where = f'creating overlay mount to {wanted.target}, mount_data="{wanted.data}": using mount program '
    words = [wanted.program, "-o", wanted.data, wanted.target]
    try:
        done = subprocess.run(
            words, check=False, cwd=wanted.home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise DriverError(f"{where}{wanted.program}: <stderr empty>: fork/exec {wanted.program}: {why}") from error
    if done.returncode:
        said = os.fsdecode(done.stderr) or "<stderr empty>"
        end = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        raise DriverError(f"{where}{wanted.program}: {said}: {end}")


def unmount(path: str, *, lazily: bool = False) -> None:
    """Undo a mount; `lazily`, or if it is in use, it goes when the last file in it is closed. Raises DriverError."""
    if not lazily and not _told_to_unmount("-u", path):
        return
    from layerhold.linux import mounts

    try:
        _flush(path)
        mounts.umount(path, mounts.MNT_DETACH)
    except OSError as error:
        if error.errno == errno.EINVAL:  # it was the last moment: nothing is mounted any more
            return
        if error.errno != errno.EPERM:
            raise
        if said := _told_to_unmount("-uz", path):
            raise DriverError(f"unmounting {path}: {said}") from error


def _flush(path: str) -> None:
    """Have written what was written in the mount; a program that is gone has nothing left to write."""
    from layerhold.linux.files import syncfs

    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def _told_to_unmount(flag: str, path: str) -> str:
    """Have a mount undone by the program that is for it; give what it has to say against that."""
    import shutil
    import subprocess

    said = f"neither of {', '.join(_UNMOUNTERS)} is installed (Debian: fuse3)"
    for name in _UNMOUNTERS:
        found = shutil.which(name)
        if found:
            done = subprocess.run([found, flag, path], check=False, capture_output=True, stdin=subprocess.DEVNULL)
            if done.returncode == 0:
                return ""
            said = os.fsdecode(done.stderr).strip() or f"{name} ended with {done.returncode}"
    return said
