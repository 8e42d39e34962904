"""User namespaces that are made up for a container: how many IDs it needs, and which ones nobody else has.

What `podman run --userns=auto:size=,uidmapping=,gidmapping=` asks for. The IDs come from those of a user of
/etc/subuid and /etc/subgid, less those of all other containers; the lowest that are free are taken, in pieces if need
be. Maps that are asked for in so many words come last in the result, are not taken from the available IDs, and may be
those of another container. Source: podman 5.8, as it was seen to choose.

Everything here computes; who calls it holds the lock on the containers (`userns.lock`) until the choice is saved.
"""

from __future__ import annotations

from layerhold.errors import InvalidMappings, NoAvailableIDs, StorageError
from layerhold.ids.mappings import IdMappings, IdRange, refuse_unusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Span = tuple[int, int]  # first, and the one after the last

_NOBODY = 65534  # the kernel's: what has no map belongs to it, so it needs none
_NOBODIES = (b"nobody", b"nogroup")
_LARGEST_ID = 2**31 - 1


def size_needed(passwd: bytes, group: bytes, owners: Iterable[int]) -> int:
    """Give how many IDs, from 0 on, an image uses: those in its /etc/passwd and /etc/group, and its files' `owners`.

    Lines that are malformed are passed over. Go's count is one less where an ID is exactly the count up to there.
    """
    users = (fields for line in passwd.splitlines() for fields in _fields(line, 2, 4))
    groups = (
        fields for line in group.splitlines() if not line.strip().startswith(b"#") for fields in _fields(line, 2, 3)
    )
    return 1 + max((*users, *groups, *owners), default=-1)


def size_to_choose(
    needed: int, *, requested: int = 0, at_least: int = 1, smallest: int = 1024, largest: int = 65536
) -> int:
    """Give the size of a namespace: the one that is requested, or else what is `needed`, within the settings' limits.

    `smallest` and `largest` are `auto-userns-min-size` and `auto-userns-max-size` of storage.conf (0: no limit);
    `at_least` is the caller's own limit. Raises StorageError if more is needed than may be had.
    """
    if requested > 0:
        return requested
    size = max(needed, at_least, smallest)
    if 0 < largest < size:
        raise StorageError(
            f"the container needs a user namespace with size {size} that is bigger than the maximum value allowed with "
            f"userns=auto {largest}",
            hint="raise auto-userns-max-size in storage.conf, or say which size is wanted",
        )
    return size


def choose(
    available: IdMappings, used: Iterable[IdMappings], size: int, *, additional: IdMappings | None = None
) -> IdMappings:
    """Give maps for the container IDs from 0 to `size`, without `additional`'s, and then `additional`.

    Only the host's side of `available` and of `used` (the maps of all containers) counts; no ranges are no IDs.
    Raises NoAvailableIDs, InvalidMappings (of `additional`, or a size of 0).
    """
    if size < 1:
        raise InvalidMappings(f"a user namespace of {size} IDs")
    used, fixed = tuple(used), additional or IdMappings()
    for ranges in (fixed.uids, fixed.gids):
        _refuse_conflicts(ranges)
    return IdMappings(
        uids=_choose("user", available.uids, [span for maps in used for span in maps.uids], size, fixed.uids),
        gids=_choose("group", available.gids, [span for maps in used for span in maps.gids], size, fixed.gids),
    )


def _choose(
    kind: str, available: Sequence[IdRange], used: Sequence[IdRange], size: int, fixed: Sequence[IdRange]
) -> tuple[IdRange, ...]:
    wanted = _without([(0, size)], map(_inside, fixed))
    free = _without(map(_outside, available), map(_outside, (*used, *fixed)))
    lacking = _total(wanted) - _total(free)
    if lacking > 0:
        raise NoAvailableIDs(hint=f"{_total(wanted)} {kind} IDs are needed, {_total(free)} are free")
    return (*_paired(wanted, free), *fixed)


def _paired(wanted: Sequence[Span], free: Sequence[Span]) -> Iterator[IdRange]:
    """Give each wanted ID a free one, in order."""
    left = list(reversed(free))
    for first, end in wanted:
        start = first
        while start < end:
            low, high = left.pop()
            size = min(end - start, high - low)
            yield IdRange(container=start, host=low, size=size)
            start += size
            if low + size < high:
                left.append((low + size, high))


def _refuse_conflicts(ranges: Sequence[IdRange]) -> None:
    for count, span in enumerate(ranges):
        for other in ranges[:count]:
            if _meet(_inside(span), _inside(other)) or _meet(_outside(span), _outside(other)):
                text = f"the specified UID and/or GID mapping {span} conflicts with other mappings"
                raise InvalidMappings(text)
    refuse_unusable(ranges, "additional map")


def _without(spans: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    """Give what is left of `spans` without `holes`, sorted, each ID once."""
    ordered, left = sorted(holes), []
    for span in _merged(spans):
        start, end = span
        for low, high in ordered:
            if _meet((start, end), (low, high)):
                if low > start:
                    left.append((start, low))
                start = high
        if start < end:
            left.append((start, end))
    return left


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


def _meet(one: Span, other: Span) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _total(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)


def _inside(span: IdRange) -> Span:
    return span.container, span.container + span.size


def _outside(span: IdRange) -> Span:
    return span.host, span.host + span.size


def _fields(line: bytes, first: int, end: int) -> Iterator[int]:
    """Give the IDs in the fields from `first` to `end` of a line, except those of nobody."""
    fields = line.strip().split(b":")
    if fields[0] in _NOBODIES:
        return
    for field in fields[first:end]:
        digits = field[1:] if field[:1] == b"+" else field
        if digits.isdigit() and len(digits) <= 10 and int(digits) <= _LARGEST_ID and int(digits) != _NOBODY:
            yield int(digits)
