"""Who in a container is who on the host: ranges of user and group IDs.

An empty list of ranges is the identity. What no range covers is an error, never passed on as it is.
"""

from __future__ import annotations

from layerhold.errors import InvalidMappings, StorageError
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# (uid_t)-1 means "nobody": chown(2) takes it for "leave it as it is", so it can be no one's ID.
END = 2**32 - 1


class IdRange(Value):
    """`size` IDs, from `container` on inside and from `host` on outside."""

    container: int
    host: int
    size: int

    def __str__(self) -> str:
        return f"{self.container}:{self.host}:{self.size}"


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
        return host_id(self.uids, uid), host_id(self.gids, gid)

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """Give the owner in the container of what belongs to uid:gid on the host. Raises StorageError if unmapped."""
        return container_id(self.uids, uid), container_id(self.gids, gid)

    def root(self) -> tuple[int, int]:
        """Give the container's root, as the host sees it."""
        return self.to_host(0, 0)

    def outside(self, uids: Iterable[int], gids: Iterable[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Give those of these host IDs that nobody in the container has, sorted, each once."""
        return _outside(self.uids, uids), _outside(self.gids, gids)

    def lines(self) -> tuple[str, str]:
        """Give both maps as the kernel reads them: lines of `<container> <host> <size>`."""
        return _lines(self.uids), _lines(self.gids)


def checked(mappings: IdMappings) -> IdMappings:
    """Give the maps back, if a kernel would take them. Raises InvalidMappings."""
    refuse_unusable(mappings.uids, "uid map")
    refuse_unusable(mappings.gids, "gid map")
    return mappings


def effective(mappings: IdMappings | None, below: IdMappings | None) -> IdMappings | None:
    """Give the maps that hold: those that are asked for, else those of the layer below; None: as on the host.

    Raises InvalidMappings for maps that no kernel takes.
    """
    if mappings is None:
        return below
    return None if mappings.identity else checked(mappings)


def refuse_unusable(ranges: Sequence[IdRange], name: str) -> None:
    """Raise InvalidMappings if a range is empty, has numbers that are no IDs, or overlaps another on either side.

    The kernel refuses such maps, too; `name` says what kind they are, for the error.
    """
    for span in ranges:
        if span.size <= 0:
            raise InvalidMappings(f"{name} {span}: it has no IDs")
        if min(span.container, span.host) < 0 or max(span.container, span.host) + span.size > END:
            raise InvalidMappings(f"{name} {span}: IDs are numbers from 0 to {END - 1}")
    from itertools import pairwise

    for side in ("container", "host"):
        ordered = sorted(ranges, key=lambda span: int(getattr(span, side)))
        for before, after in pairwise(ordered):
            if getattr(before, side) + before.size > getattr(after, side):
                raise InvalidMappings(f"{name} {before} and {after}: they overlap on the side of the {side}")


def host_id(ranges: Sequence[IdRange], id: int) -> int:
    """Give the host's ID for the container's `id`. Raises StorageError if it has none."""
    if not ranges:
        return id
    for span in ranges:
        if span.container <= id < span.container + span.size:
            return span.host + id - span.container
    raise StorageError(f"container ID {id} cannot be mapped to a host ID")


def container_id(ranges: Sequence[IdRange], id: int) -> int:
    """Give the container's ID for the host's `id`. Raises StorageError if it has none."""
    if not ranges:
        return id
    for span in ranges:
        if span.host <= id < span.host + span.size:
            return span.container + id - span.host
    raise StorageError(f"host ID {id} cannot be mapped to a container ID")


def _outside(ranges: Sequence[IdRange], ids: Iterable[int]) -> tuple[int, ...]:
    if not ranges:
        return ()
    return tuple(sorted({id for id in ids if not any(span.host <= id < span.host + span.size for span in ranges)}))


def _lines(ranges: Sequence[IdRange]) -> str:
    spans = ranges or (IdRange(container=0, host=0, size=END),)
    return "".join(f"{span.container} {span.host} {span.size}\n" for span in spans)
