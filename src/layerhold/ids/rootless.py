"""The user namespace of an ordinary user: root there is he himself, and the other IDs are his subordinate ones.

As the Go library (1.64) maps them: 0 is the user, and from 1 on follow the ranges that /etc/subuid and /etc/subgid give
him. Setting such maps takes the programs `newuidmap` and `newgidmap` (shadow-utils; Debian: uidmap), which may do it.
Who has no ranges, or not these programs, can have a namespace with himself alone.
"""

from __future__ import annotations

import errno
import os

from layerhold.errors import NoSubIds, StorageError
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.ids.subids import SUBGID, SUBUID, subgids_of, subuids_of

_PROGRAMS = ("newuidmap", "newgidmap")


def advice() -> str:
    """Say what helps a user for whose work a namespace is needed."""
    import shutil

    missing = [program for program in _PROGRAMS if not shutil.which(program)]
    if missing:
        return f"install {' and '.join(missing)} (Debian: uidmap), and use `layerhold unshare`"
    try:
        mappings_of(os.geteuid(), os.getegid())
    except StorageError as error:
        return error.hint or str(error)
    except OSError as error:
        return str(error)
    return "use `layerhold unshare`, or call layerhold.in_user_namespace() first"


def mappings_of(uid: int, gid: int, *, files: tuple[str, str] = (SUBUID, SUBGID)) -> IdMappings:
    """Give the maps for a user. Raises NoSubIds, InvalidMappings, OSError (no such files)."""
    import pwd

    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise NoSubIds(files[0], f"user {uid} has no name, so no ranges either") from None
    return IdMappings(
        uids=(*alone(uid, gid).uids, *map(_shifted, subuids_of(name, files[0]))),
        gids=(*alone(uid, gid).gids, *map(_shifted, subgids_of(name, files[1]))),
    )


def alone(uid: int, gid: int) -> IdMappings:
    """Give the maps for a user who has no ranges: nobody but himself."""
    return IdMappings(uids=(IdRange(container=0, host=uid, size=1),), gids=(IdRange(container=0, host=gid, size=1),))


def become_root(mappings: IdMappings) -> None:
    """Go into a user namespace with these maps. Raises OSError, and then nothing has changed."""
    import shutil

    from layerhold.linux import namespaces

    paths = []
    for program in _PROGRAMS:
        path = shutil.which(program)
        if path is None:
            raise OSError(errno.ENOENT, f'finding {program}: exec: "{program}": executable file not found in $PATH')
        paths.append(path)

    def set_maps(process: int) -> None:
        for path, lines in zip(paths, mappings.lines(), strict=True):
            _set_map(path, process, lines)

    namespaces.become_root(set_maps)


def become_root_alone(uid: int, gid: int) -> None:
    """Go into a user namespace that has this user and group alone. Raises OSError, and then nothing has changed."""
    from layerhold.linux import namespaces

    def set_maps(process: int) -> None:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/{process}/{name}", "w") as file:
                file.write(text)

    namespaces.become_root(set_maps)


def _set_map(program: str, process: int, lines: str) -> None:
    import subprocess

    done = subprocess.run([program, str(process), *lines.split()], check=False, capture_output=True)
    if done.returncode:
        said = os.fsdecode(done.stderr).strip() or f"status {done.returncode}"
        raise OSError(errno.EPERM, f"{os.path.basename(program)}: {said}")


def _shifted(span: IdRange) -> IdRange:
    return span.replace(container=span.container + 1)
