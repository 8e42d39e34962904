"""fuse-overlayfs, the program that mounts overlays where the kernel does not."""

from __future__ import annotations

import os
import shutil
import stat

from tests import programs

PROGRAM = "/usr/bin/fuse-overlayfs"


def program() -> str:
    """The path of the program, or `Unavailable`."""
    for name, package in ((PROGRAM, "fuse-overlayfs"), ("fusermount3", "fuse3")):
        if not shutil.which(name):
            raise programs.Unavailable(f"{name} is not installed (Debian: apt-get install {package})")
    if not os.path.exists("/dev/fuse"):
        raise programs.Unavailable("this machine has no /dev/fuse")
    return PROGRAM


def option() -> str:
    """The driver option that names the program."""
    return f"overlay.mount_program={program()}"


def for_everybody() -> None:
    """See that an ordinary user may use FUSE, or raise `Unavailable`."""
    program()
    if stat.S_IMODE(os.stat("/dev/fuse").st_mode) & 0o006 != 0o006:
        raise programs.Unavailable("/dev/fuse is for root alone (chmod 666 /dev/fuse)")
