"""`--unshare` and `unshare`: being root of a user namespace of one's own.

Ordinary users are, without asking, if /etc/subuid and /etc/subgid give them IDs: then layers can have files of several
owners. What cannot be had is done without, unless it was asked for. The marks in the environment are those of Podman
and Buildah, which know by them that they are in such a namespace already.
"""

from __future__ import annotations

import os

from layerhold.cli import output
from layerhold.errors import StorageError
from layerhold.ids import rootless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.cli.flags import Given

_DONE = "_CONTAINERS_USERNS_CONFIGURED"


def enter(*, asked: bool) -> None:
    """Become root of a namespace, unless this process is. Raises NoSubIds, OSError, but only if it is `asked` for."""
    if os.environ.get(_DONE):
        return
    uid, gid = os.geteuid(), os.getegid()
    try:
        mappings = rootless.mappings_of(uid, gid)
    except (StorageError, OSError) as error:
        if not asked:
            return
        if uid == 0:
            raise
        output.complain(f"{output.described(error)}: no IDs but your own are there")
        mappings = rootless.alone(uid, gid)
    try:
        rootless.become_root(mappings)
    except OSError:
        if not asked:
            return
        raise
    os.environ.update({_DONE: "done", "_CONTAINERS_ROOTLESS_UID": str(uid), "_CONTAINERS_ROOTLESS_GID": str(gid)})


def unshare(arguments: Sequence[str], _given: Given) -> int:
    """Run a command in a user namespace, by default the user's shell."""
    import signal
    import subprocess

    enter(asked=True)
    os.environ.setdefault("BUILDAH_ISOLATION", "rootless")
    words = list(arguments) or [os.environ.get("SHELL", "/bin/sh")]
    try:
        status = subprocess.call([_found(words[0]), *words[1:]])
    except OSError as error:
        raise OSError(error.errno, f"fork/exec: {error.strerror}", words[0]) from error
    if status:
        said = f"exit status {status}" if status > 0 else f"signal: {(signal.strsignal(-status) or '').lower()}"
        output.complain(said)
    return 1 if status else 0


def _found(name: str) -> str:
    import shutil

    if "/" in name:
        return name
    path = shutil.which(name)
    if path is None:
        raise StorageError(f'exec: "{name}": executable file not found in $PATH')
    return path
