"""Lowers with other owners: copies of mounts that a user namespace maps (idmapped mounts, Linux 5.19 for overlay's).

    <home>/<id>/mapped/<n>    one for each lower, only while the overlay over them is being mounted

The kernel holds what it needs once the overlay is mounted, so the copies are taken away at once. What a killed process
leaves there is unmounted by the next mount of the layer.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

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
    with ExitStack() as stack:
        namespace = user_namespace(*mappings.lines())
        stack.callback(os.close, namespace)
        found = []
        for number, lower in enumerate(lowers):
            above, name = os.path.split(lower)
            target = os.path.join(place, str(number))
            make_dirs(target)
            if os.path.ismount(target):
                mounts.umount(target, mounts.MNT_DETACH)
            copy = mounts.mapped_copy(above, namespace)
            try:
                mounts.attach(copy, target)
            finally:
                os.close(copy)
            stack.callback(mounts.umount, target, mounts.MNT_DETACH)
            found.append(os.path.join(target, name))
        yield found
