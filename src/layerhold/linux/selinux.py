"""SELinux, as the kernel shows it: a small file system, one attribute of each file, and nothing where it is off."""

from __future__ import annotations

import os
from functools import cache

from layerhold.linux import mountinfo

ATTRIBUTE = "security.selinux"


@cache
def _selinuxfs() -> str:
    """Where selinuxfs is mounted, or "". In a container it may be read-only: then SELinux is the host's business."""
    for point in mountinfo.points_of("selinuxfs"):
        if not os.statvfs(point).f_flag & os.ST_RDONLY:
            return point
    return ""


@cache
def enabled() -> bool:
    """Tell whether files and mounts have labels here: SELinux is on and has a policy. Asked once per process."""
    if not _selinuxfs():
        return False
    try:
        with open("/proc/self/attr/current", "rb") as file:
            current = file.read()
    except OSError:
        return False
    return current.rstrip(b"\0\n") != b"kernel"  # the label of every process until a policy is loaded


def file_label(path: str | bytes | int) -> str:
    """Give the label of a file (a link's own), or of an open one, or "" if it has none. Raises OSError."""
    import errno

    try:
        if isinstance(path, int):
            value = os.getxattr(path, ATTRIBUTE)
        else:
            value = os.getxattr(path, ATTRIBUTE, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return ""
        raise
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def set_file_label(path: str | bytes | int, label: str) -> None:
    """Set the label of a file (a link's own), or of an open one. Raises OSError."""
    if isinstance(path, int):
        os.setxattr(path, ATTRIBUTE, label.encode())
    else:
        os.setxattr(path, ATTRIBUTE, label.encode(), follow_symlinks=False)


def label(path: str | bytes | int, label: str) -> None:
    """Set the label of a file; that it is gone, or on a file system without labels, is no error. Raises OSError."""
    import errno

    try:
        set_file_label(path, label)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise


def check_context(label: str) -> None:
    """Ask the policy of this machine about a label. Raises OSError: EINVAL if it does not know it."""
    fd = os.open(os.path.join(_selinuxfs(), "context"), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, label.encode() + b"\0")
    finally:
        os.close(fd)
