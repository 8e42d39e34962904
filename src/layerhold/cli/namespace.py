"""`--unshare` and `unshare`: being root of a user namespace of one's own.

Ordinary users are, without asking, if /etc/subuid and /etc/subgid give them IDs: then layers can have files of several
owners. What cannot be had is done without, unless it was asked for.
"""

from __future__ import annotations

import os

from layerhold.cli import output
from layerhold.errors import StorageError
from layerhold.settings import namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.cli.flags import Given


def enter(*, asked: bool) -> None:
    """Become root of a namespace, unless this process is. Raises NoSubIds, OSError, but only if it is `asked` for."""

    def alone(error: Exception) -> None:
        if not asked or os.geteuid() == 0:
            raise error
        output.complain(f"{output.described(error)}: no IDs but your own are there")

    try:
        namespace.enter(alone=alone)
    except (StorageError, OSError):
        if asked:
            raise


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
