"""Mounts of datasets: nowhere, for as long as a descriptor is open, or on a directory.

The kernel has one file system of a dataset, however often that is mounted, so a mount that is only read is one of a
file system that can be written to. Only where somebody has mounted it for reading alone, another such mount is made.
"""

from __future__ import annotations

import errno

from layerhold.errors import DriverError, LayerWithoutFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def shown(dataset: str, options: Sequence[str] = (), *, read_only: bool = False) -> int:
    """Mount a dataset nowhere: a descriptor of its top. Raises LayerWithoutFiles, DriverError."""
    try:
        return detached(dataset, options, read_only=read_only)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise LayerWithoutFiles(dataset.rpartition("/")[2], f"mount {dataset}") from error
        raise DriverError(f"mounting the dataset {dataset}: {error.strerror}") from error


def detached(dataset: str, options: Sequence[str], *, read_only: bool) -> int:
    """The same. Raises OSError."""
    from layerhold.linux import mounts

    try:
        return mounts.detached("zfs", dataset, options, mounts.MS_RDONLY if read_only else 0)
    except OSError as error:
        if not read_only or error.errno != errno.EBUSY:
            raise
        return mounts.detached("zfs", dataset, options, mounts.MS_RDONLY, read_only=True)


def tree(fd: int) -> str:
    """Give the path of what a descriptor has mounted."""
    return f"/proc/self/fd/{fd}/."
