"""The home of the overlay driver: the options it was set up with, its file system, and its bind mount.

The home is mounted on itself and made private, as Go does it, so that the mounts of layers are not copied into every
other mount namespace. It stays mounted after the process, until `shutdown`.
"""

from __future__ import annotations

import os

from layerhold.drivers.options import parse
from layerhold.errors import DriverError, DriverIncompatibleFS
from layerhold.linux import mounts
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What these mean is not built yet; a store that was set up with them must not be used without them.
_NOT_YET = frozenset(
    {
        "additionalimagestore",
        "additionallayerstore",
        "force_mask",
        "imagestore",
        "inodes",
        "mount_program",
        "size",
        "use_composefs",
    }
)
_KNOWN = _NOT_YET | {"ignore_chown_errors", "mountopt", "override_kernel_check", "skip_mount_home", "sync"}

# <linux/magic.h>, with the names that Go's `status` prints
_FILESYSTEMS = {
    0x61756673: "aufs",
    0x9123683E: "btrfs",
    0xF15F: "ecryptfs",
    0xEF53: "extfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x794C7630: "overlayfs",
    0x01021994: "tmpfs",
    0x58465342: "xfs",
    0x2FC12FC1: "zfs",
}
_REFUSED = ("aufs", "ecryptfs", "overlayfs")


class Settings(Value):
    """The options of the driver."""

    mount_options: tuple[str, ...] = ()
    mount_home: bool = True
    squash: bool = False


def settings(options: Sequence[str]) -> Settings:
    """Read the options. Raises BadConfig for what is not known or malformed, DriverError for what is not offered."""
    given = parse(options, "overlay", _KNOWN)
    for key in sorted(_NOT_YET):
        if given.get(key) not in ("", "false"):
            raise DriverError(f"overlay: the option {key} is not offered yet, it comes with a later version")
    return Settings(
        mount_options=tuple(word for word in given.get("mountopt").split(",") if word),
        mount_home=not given.flag("skip_mount_home"),
        squash=given.flag("ignore_chown_errors"),
    )


def backing_filesystem(path: str) -> str:
    """Name the file system that `path` is on. Raises DriverIncompatibleFS if overlay cannot stand on it."""
    name = _FILESYSTEMS.get(mounts.filesystem_type(path), "<unknown>")
    if name in _REFUSED:
        raise DriverIncompatibleFS(
            f"'overlay' is not supported over {name}, a mount_program is required", hint="use the driver vfs"
        )
    return name


def mount_home(home: str) -> None:
    """Mount the home on itself and make it private, unless something is mounted there already."""
    if os.path.realpath(home) not in mounts.mount_points():
        mounts.mount(home, home, "none", mounts.MS_BIND)
        mounts.mount("none", home, "none", mounts.MS_PRIVATE)


def unmount_home(home: str) -> None:
    """Undo `mount_home`."""
    if os.path.realpath(home) in mounts.mount_points():
        mounts.umount(home, mounts.MNT_DETACH)


def unmount_below(directory: str) -> None:
    """Unmount what a killed process had mounted in its place aside."""
    above = os.path.realpath(directory) + "/"
    for point in mounts.mount_points():
        if point.startswith(above):
            mounts.umount(point, mounts.MNT_DETACH)
