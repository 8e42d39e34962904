"""When what was renamed into place is on the disk.

A record that speaks of a layer is saved, and synced, after the layer was moved into its place. On file systems that
write changes of names in the order in which they were made, that sync makes the move durable, too. On others (btrfs
syncs only what the synced file depends on) it would not: after a power loss the record is there, and the layer is still
aside, where the next sweep removes it.
"""

from __future__ import annotations

from layerhold.linux import mountinfo
from layerhold.tree.files import sync_tree

_IN_ORDER = ("ext3", "ext4", "xfs", "tmpfs")


def settle(directory: str) -> None:
    """Make sure that names which were changed in `directory` become durable before, or with, what is synced later."""
    if mountinfo.filesystem_of(directory) not in _IN_ORDER:
        sync_tree(directory)
