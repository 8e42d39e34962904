"""The home of the overlay driver: the options it was set up with, its file system, and what is mounted in it."""

from __future__ import annotations

import errno
import os

from layerhold.drivers.options import parse
from layerhold.errors import BadConfig, DriverError, DriverIncompatibleFS
from layerhold.linux import mountinfo
from layerhold.linux.idmap import in_user_namespace
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.drivers.base import LayerSpec
    from layerhold.drivers.sizes import Limits
    from layerhold.linux.mountinfo import Mount

# What these mean is not built yet; a store that was set up with them must not be used without them.
_NOT_YET = frozenset(
    {
        "additionalimagestore",
        "additionallayerstore",
        "imagestore",
        "use_composefs",
    }
)
_KNOWN = _NOT_YET | {
    "force_mask",
    "ignore_chown_errors",
    "inodes",
    "mount_program",
    "mountopt",
    "override_kernel_check",
    "size",
    "skip_mount_home",
    "sync",
}
_MASKS = {"shared": 0o755, "private": 0o700}

# The kernel's names of file systems as Go's `status` prints them; where they differ.
_NAMES = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "overlay": "overlayfs", "nfs4": "nfs", "fuseblk": "fuse"}
_TAKES = "limits take xfs or ext4, mounted with prjquota, and root on the machine"
_REFUSED = ("aufs", "ecryptfs", "overlayfs")


class Attributes(Value):
    """Where overlay keeps what it has to say of a file: attributes whose names begin with `prefix`.

    `options` have the kernel look there.
    """

    prefix: str
    options: tuple[str, ...] = ()


TRUSTED = Attributes(prefix="trusted.overlay.")
# In a user namespace nobody may set `trusted.` attributes (Linux 5.11; Go's programs do the same).
USER = Attributes(prefix="user.overlay.", options=("userxattr",))


class Settings(Value):
    """The options of the driver. `mount_program`: "" for the kernel. `mask`: the mode of all files.

    `limits` are those of layers that are written to, None if none were given.
    """

    mount_options: tuple[str, ...] = ()
    mount_home: bool = True
    squash: bool = False
    mount_program: str = ""
    mask: int | None = None
    limits: Limits | None = None


def settings(options: Sequence[str]) -> Settings:
    """Read the options. Raises BadConfig for what is not known or malformed, DriverError for what is not offered."""
    given = parse(options, "overlay", _KNOWN)
    if given.get("sync") not in ("", "none", "filesystem"):
        raise BadConfig(f'invalid sync mode for overlay driver: invalid sync mode: "{given.get("sync")}"')
    for key in sorted(_NOT_YET):
        if given.get(key) not in ("", "false"):
            raise DriverError(f"overlay: the option {key} is not offered yet, it comes with a later version")
    return Settings(
        mount_options=tuple(word for word in given.get("mountopt").split(",") if word),
        mount_home=not given.flag("skip_mount_home"),
        squash=given.flag("ignore_chown_errors"),
        mount_program=_program(given.get("mount_program")),
        mask=_mask(given.get("force_mask")) if "force_mask" in given else None,
        limits=_limits([(key, given.get(key)) for key in ("size", "inodes") if key in given]),
    )


def _limits(options: Sequence[tuple[str, str]]) -> Limits | None:
    if not options:
        return None
    from layerhold.drivers.sizes import Limits, read_limits

    found = read_limits(options, Limits())
    return found if found.size or found.inodes else None


def _program(path: str) -> str:
    try:
        if path:
            os.stat(path)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise BadConfig(f'overlay: can\'t stat program "{path}": faccessat {path}: {why}') from None
    return path


def _mask(text: str) -> int:
    digits = text.removeprefix("0o")
    if text in _MASKS:
        return _MASKS[text]
    if not digits or digits.strip("01234567") or int(digits, 8) > 0o7777:
        raise BadConfig(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(digits, 8)


def backing_filesystem(mount: Mount, *, by_program: bool) -> str:
    """Name the file system that a home is on. Raises DriverIncompatibleFS if the kernel cannot have overlay on it."""
    name = _NAMES.get(mount.kind, mount.kind).partition(".")[0] or "<unknown>"
    if name in _REFUSED and not by_program:
        raise DriverIncompatibleFS(
            f"'overlay' is not supported over {name}, a mount_program is required",
            hint="set the option overlay.mount_program (fuse-overlayfs), or use the driver vfs",
        )
    return name


def can_limit(mount: Mount) -> bool:
    """Tell whether layers can be limited: by root, on a file system that is mounted to do so."""
    able = mount.kind in ("xfs", "ext4") and "prjquota" in mount.options
    return able and os.geteuid() == 0 and not in_user_namespace()


def no_limits(filesystem: str) -> DriverError:
    """Say, in Go's words, why the options that limit layers are refused."""
    if filesystem == "xfs":
        why = "storage options overlay.size and overlay.inodes not supported. Filesystem does not support Project Quota"
    else:
        why = f"storage option overlay.size and overlay.inodes only supported for backingFS XFS. Found {filesystem}"
    return DriverError(why, hint=_TAKES)


def limits_of(spec: LayerSpec, settings: Settings, *, able: bool) -> Limits | None:
    """Say how much a new layer may hold; None for one that is not counted. `able`: whether there can be limits.

    Raises DriverError and BadConfig, in Go's words.
    """
    if not spec.writable:
        for key, _value in spec.storage_options:
            raise DriverError(f"--storage-opt {key.lower()} is only supported for ReadWrite Layers")
        return None
    if not able:
        if spec.storage_options:
            words = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
            raise DriverError(words, hint=_TAKES)
        return None
    from layerhold.drivers.sizes import Limits, read_limits

    return read_limits(spec.storage_options, settings.limits or Limits())


def unmount_below(directory: str) -> None:
    """Unmount what a killed process had mounted in its place aside."""
    above = os.path.realpath(directory) + "/"
    for point in mountinfo.all_points():
        if point.startswith(above):
            detach(point)


def detach(point: str) -> None:
    """Unmount what is mounted there; files that are open in it stay so."""
    from layerhold.linux import mounts

    try:
        mounts.umount(point, mounts.MNT_DETACH)
    except PermissionError:
        from layerhold.drivers import overlay_program

        overlay_program.unmount(point, lazily=True)


def is_mounted(merged: str) -> bool:
    """Tell whether something is mounted there: it is on another device than the directory above it."""
    try:
        return os.stat(merged).st_dev != os.stat(os.path.dirname(merged)).st_dev
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.ENOTCONN:  # the program that served the mount was killed
            raise
        return True


def is_dead(merged: str) -> bool:
    """Tell whether the program that served a mount is gone. (What `stat` says may be remembered by the kernel.)"""
    try:
        os.statvfs(merged)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def clear(place: str) -> None:
    """Unmount what a killed process left mounted below `place`, and remove the mount points and `place`."""
    if os.path.isdir(place):
        unmount_below(place)
        remove_empty(*(os.path.join(place, name) for name in os.listdir(place)), place)


def remove_empty(*directories: str) -> None:
    """Remove those of these directories that have nothing in them, so that a refusal leaves no home."""
    for directory in directories:
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY):
                raise
