"""Being root of a user namespace of one's own (ids/rootless.py), once in a process and those that it starts.

The marks in the environment are those of Podman and Buildah, which know by them that they are in such a namespace.
"""

from __future__ import annotations

import os

from layerhold.errors import OnlyOwnIDs, StorageError
from layerhold.ids import rootless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DONE = "_CONTAINERS_USERNS_CONFIGURED"


def in_user_namespace() -> None:
    """Make this process root of a user namespace of its user's; root, and who is in one already, stays as he is.

    Afterwards overlay can be used, and layers can have files of several owners. Call it before there are threads.
    Where the user has no IDs but his own, a warning (OnlyOwnIDs) says so, and what would help. Raises OSError (EINVAL:
    there are threads already; EPERM, ENOSPC: this machine does not allow it), and then nothing has changed.
    """

    def warn(error: Exception) -> None:
        import warnings

        warnings.warn(f"{error}: the namespace has no IDs but the user's own", OnlyOwnIDs, stacklevel=4)

    if os.geteuid() != 0:
        enter(alone=warn)


def enter(*, alone: Callable[[Exception], None]) -> None:
    """Become root of a namespace, unless this process is already.

    `alone` is told why the namespace is to have nobody but the user; it may raise that. Raises OSError.
    """
    if os.environ.get(_DONE):
        return
    uid, gid = os.geteuid(), os.getegid()
    try:
        rootless.become_root(rootless.mappings_of(uid, gid))
    except (StorageError, FileNotFoundError) as error:
        alone(error)
        rootless.become_root_alone(uid, gid)
    os.environ.update({_DONE: "done", "_CONTAINERS_ROOTLESS_UID": str(uid), "_CONTAINERS_ROOTLESS_GID": str(gid)})
