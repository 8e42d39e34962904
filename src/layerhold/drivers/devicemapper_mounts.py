"""Mounts of thin devices: nowhere, for as long as a descriptor is open, or on a directory.

What a layer holds is in the directory `rootfs` of its file system; beside it is a file `id`. Both are made by the first
mount. All devices are snapshots of one another, so an xfs has the UUID of others that are mounted (`nouuid`). A mount
that is only read is one of a file system that can be written to: the kernel mounts it another time, then, as well.
"""

from __future__ import annotations

import os

from layerhold.errors import DriverError
from layerhold.linux import block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TREE = "rootfs"


def detached(node: str, options: Sequence[str], *, read_only: bool = False) -> tuple[int, str]:
    """Mount a device nowhere: a descriptor of its top, and the kind of its file system. Raises DriverError."""
    from layerhold.linux import mounts

    found = block.probe(node)
    if found is None:
        raise DriverError(f"devmapper: {node} has neither ext4 nor xfs on it")
    words = (*(("nouuid",) if found.kind == "xfs" else ()), *(word for word in options if word != "nouuid"))
    try:
        return mounts.detached(found.kind, node, words, mounts.MS_RDONLY if read_only else 0), found.kind
    except OSError as error:
        raise DriverError(f"devmapper: mounting {node}: {error.strerror}") from error


def dress(fd: int, id: str) -> None:
    """Make `rootfs` and `id` in a file system that has none yet."""
    top = f"/proc/self/fd/{fd}"
    try:
        os.mkdir(f"{top}/{TREE}", 0o555)
    except FileExistsError:
        return
    file = os.open(f"{top}/id", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(file, id.encode())
    finally:
        os.close(file)


def set_retries(node: str, retries: str) -> None:
    """Say how often xfs is to try again to write where the pool is full."""
    name = f"dm-{os.minor(os.stat(node).st_rdev)}"
    with open(f"/sys/fs/xfs/{name}/error/metadata/ENOSPC/max_retries", "w") as file:
        file.write(retries)
