"""Where this user's store is when nothing names a place, and where the user's own settings are.

As the Go library (1.64) has it:

    graph root   root: /var/lib/containers/storage   users: $XDG_DATA_HOME/containers/storage, else ~/.local/share/…
    run root     root: /run/containers/storage       users: <runtime directory>/containers
    settings     $XDG_CONFIG_HOME/containers, else ~/.config/containers (root's too)

The runtime directory is `$XDG_RUNTIME_DIR`, else `/run/user/<uid>` if it is this user's and closed to others, else
`$TMPDIR/storage-run-<uid>`, which is made.
"""

from __future__ import annotations

import os

from layerhold.errors import BadConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def user(env: Mapping[str, str]) -> int:
    """Say who the user is: in a user namespace that Podman or Layerhold made, the one who is root there (0 is root)."""
    outside = env.get("_CONTAINERS_ROOTLESS_UID", "")
    if os.geteuid() == 0 and env.get("_CONTAINERS_USERNS_CONFIGURED") and outside.isascii() and outside.isdigit():
        return int(outside)
    return os.geteuid()


def graphroot(env: Mapping[str, str]) -> str:
    """Say where layers and images are kept."""
    if user(env) == 0:
        return "/var/lib/containers/storage"
    data = env.get("XDG_DATA_HOME") or os.path.join(home(env), ".local/share")
    return os.path.join(data, "containers/storage")


def runroot(env: Mapping[str, str]) -> str:
    """Say where what need not outlive a reboot is kept. Raises BadConfig if there is no safe place for it."""
    if user(env) == 0:
        return "/run/containers/storage"
    return os.path.join(_runtime_directory(env, user(env)), "containers")


def settings(env: Mapping[str, str]) -> str:
    """Say which directory has this user's own settings."""
    return os.path.join(env.get("XDG_CONFIG_HOME") or os.path.join(home(env), ".config"), "containers")


def home(env: Mapping[str, str]) -> str:
    """Say where this user is at home, links resolved; without $HOME as /etc/passwd has it."""
    found = env.get("HOME")
    if not found:
        import pwd

        try:
            found = pwd.getpwuid(user(env)).pw_dir
        except KeyError:
            raise BadConfig(f"user {user(env)} has no home: HOME is not set, and /etc/passwd has no entry") from None
    return os.path.realpath(found)


def expand(path: str, env: Mapping[str, str]) -> str:
    """Put in the user's ID for `$UID`, then what the environment has for `$NAME` and `${NAME}` ("" if nothing)."""
    if "$" not in path:
        return path
    import re

    return re.sub(
        r"\$(?:\{([^}]+)\}|(\{\}|\{)|([*#$@!?0-9-])|([A-Za-z0-9_]+))",
        lambda match: env.get(match[1] or match[4] or "", ""),
        path.replace("$UID", str(user(env))),
    )


def writable(path: str) -> bool:
    """Tell whether `path`, or the nearest directory above it that is there, can be written by this user."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.access(path, os.W_OK | os.X_OK)


def _runtime_directory(env: Mapping[str, str], number: int) -> str:
    named = env.get("XDG_RUNTIME_DIR")
    if named:
        try:
            return os.path.realpath(named, strict=True)
        except OSError as error:
            raise BadConfig(
                f"lstat {named}: {_reason(error)}", hint="XDG_RUNTIME_DIR names it: unset it, or make the directory"
            ) from error
    if _private(f"/run/user/{number}"):
        return f"/run/user/{number}"
    fallback = os.path.join(env.get("TMPDIR") or "/tmp", f"storage-run-{number}")  # noqa: S108 - Go's place, made 0700
    try:
        os.makedirs(fallback, mode=0o700, exist_ok=True)
    except OSError as error:
        raise BadConfig(f"mkdir {fallback}: {_reason(error)}") from error
    if not _private(fallback):
        raise BadConfig(f'path "{fallback}" exists and it is not writeable only by the current user')
    return fallback


def _private(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_uid == os.geteuid() and found.st_mode & 0o170022 == 0o040000


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
