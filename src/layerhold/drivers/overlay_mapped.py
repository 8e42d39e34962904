"""Lowers with other owners: copies of mounts that a user namespace maps (idmapped mounts, Linux 5.19 for overlay's).

    <home>/<id>/mapped/<n>    one for each lower, only while the overlay over them is being mounted

The kernel holds what it needs once the overlay is mounted, so the copies are taken away at once. What a killed process
leaves there (Go's too) is unmounted by the next mount of the layer, and before the layer is removed: a directory on
which something is mounted cannot be deleted. Such a mount is on the same device as the directory above it, so only the
list of mounts tells of it. Whoever only reads a layer has its copies in a place aside, since others may read it, too.
"""

from __future__ import annotations

import os

from layerhold.blocks import ExitStack, contextmanager
from layerhold.drivers.overlay_home import clear, remove_empty
from layerhold.linux import mounts
from layerhold.linux.namespaces import user_namespace
from layerhold.tree.files import make_dirs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerhold.ids.mappings import IdMappings


@contextmanager
def mapped_lowers(place: str, lowers: Sequence[str], mappings: IdMappings) -> Iterator[Sequence[str]]:
    """Give the directories `lowers` as they are below `place` with mapped owners, for this block. Raises OSError."""
    clear(place)
    with ExitStack() as stack:
        stack.callback(remove_empty, place)
        namespace = user_namespace(*mappings.lines())
        stack.callback(os.close, namespace)
        found = []
        for number, lower in enumerate(lowers):
            above, name = os.path.split(lower)
            target = os.path.join(place, str(number))
            make_dirs(target)
            stack.callback(remove_empty, target)
            copy = mounts.mapped_copy(above, namespace)
            try:
                mounts.attach(copy, target)
            finally:
                os.close(copy)
            stack.callback(mounts.umount, target, mounts.MNT_DETACH)
            found.append(os.path.join(target, name))
        yield found
