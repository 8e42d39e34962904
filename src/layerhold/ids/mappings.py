"""Who in a container is who on the host: ranges of user and group IDs.

An empty list of ranges is the identity. What no range covers is an error, never passed on as it is.
"""

from __future__ import annotations

from layerhold.errors import StorageError
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class IdRange(Value):
    """`size` IDs, from `container` on inside and from `host` on outside."""

    container: int
    host: int
    size: int


class IdMappings(Value):
    """The ranges of users and of groups."""

    uids: tuple[IdRange, ...] = ()
    gids: tuple[IdRange, ...] = ()

    @property
    def identity(self) -> bool:
        """Tell whether nothing is changed."""
        return not self.uids and not self.gids

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """Give the owner on the host of what belongs to uid:gid in the container. Raises StorageError if unmapped."""
        return _to_host(self.uids, uid), _to_host(self.gids, gid)

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """Give the owner in the container of what belongs to uid:gid on the host. Raises StorageError if unmapped."""
        return _to_container(self.uids, uid), _to_container(self.gids, gid)

    def root(self) -> tuple[int, int]:
        """Give the container's root, as the host sees it."""
        return self.to_host(0, 0)


def _to_host(ranges: Sequence[IdRange], id: int) -> int:
    if not ranges:
        return id
    for span in ranges:
        if span.container <= id < span.container + span.size:
            return span.host + id - span.container
    raise StorageError(f"Container ID {id} cannot be mapped to a host ID")


def _to_container(ranges: Sequence[IdRange], id: int) -> int:
    if not ranges:
        return id
    for span in ranges:
        if span.host <= id < span.host + span.size:
            return span.container + id - span.host
    raise StorageError(f"Host ID {id} cannot be mapped to a container ID")
