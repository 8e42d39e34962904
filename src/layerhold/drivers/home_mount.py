"""The home of a driver mounted on itself and made private, as Go does it.

So the mounts of layers are not copied into every other mount namespace. The home stays mounted after the process, until
`shutdown`.
"""

from __future__ import annotations

import os

from layerhold.linux import mountinfo


def mount_home(home: str) -> None:
    """Mount the home on itself and make it private, unless something is mounted there already."""
    if os.path.realpath(home) not in mountinfo.mount_points():
        from layerhold.linux import mounts

        mounts.mount(home, home, "none", mounts.MS_BIND)
        mounts.mount("none", home, "none", mounts.MS_PRIVATE)


def unmount_home(home: str) -> None:
    """Undo `mount_home`."""
    if os.path.realpath(home) in mountinfo.mount_points():
        from layerhold.linux import mounts

        mounts.umount(home, mounts.MNT_DETACH)
