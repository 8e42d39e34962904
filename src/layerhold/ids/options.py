"""ID maps as people write them: `container:host:size`, or the name of somebody who has subordinate IDs.

One text may hold several maps: `0:100000:1000:5000:7:1`. Numbers are decimal and have 32 bits. Source:
`containers-storage` 1.64, as it was seen to read `--uidmap`; older releases took all that is no digit for a colon. That
program also takes maps that no kernel takes (empty, overlapping, with the ID 4294967295, which means "nobody"); here
they are errors.
"""

from __future__ import annotations

from layerhold.errors import MalformedMappings, quoted
from layerhold.ids.mappings import IdMappings, IdRange, refuse_unusable
from layerhold.ids.subids import SUBGID, SUBUID, subgids_of, subuids_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_BITS32 = 2**32


def parse_ranges(texts: Sequence[str], name: str) -> tuple[IdRange, ...]:
    """Read maps, in their order; an empty text is none. `name` is "uid" or "gid", for errors.

    Raises InvalidMappings.
    """
    numbers: list[int] = []
    for text in filter(None, texts):
        parts = text.split(":")
        if len(parts) % 3 or not all(map(_is_number, parts)):
            shown = " ".join(map(quoted, texts))
            sentence = f'{name} setting is malformed expected ["uint32:uint32:uint32"]: [{shown}]'
            raise MalformedMappings(f"initializing ID mappings: {sentence}")
        numbers += map(int, parts)
    ranges = tuple(
        IdRange(container=inside, host=outside, size=size)
        for inside, outside, size in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    )
    refuse_unusable(ranges, f"{name} map")
    return ranges


def parse_mappings(
    uidmaps: Sequence[str] = (),
    gidmaps: Sequence[str] = (),
    subuidmap: str = "",
    subgidmap: str = "",
    *,
    mirror: bool = True,
    user: tuple[int, int] | None = None,
    files: tuple[str, str] = (SUBUID, SUBGID),
) -> IdMappings | None:
    """Read the maps of users and of groups: those of `files` for two names, then those written out. None: none at all.

    A name that is not given is the other name. `mirror` says the same of the lists that are written out, as Go's
    library does it; the flags of the command stand each for itself. `user` (uid, gid) is who becomes the container's
    root where no maps are given: nobody else is an ordinary user's to map. Raises InvalidMappings, NoSubIds, OSError.
    """
    user_name, group_name = subuidmap or subgidmap, subgidmap or subuidmap
    if mirror:
        uidmaps, gidmaps = uidmaps or gidmaps, gidmaps or uidmaps
    if user is not None and not (uidmaps or gidmaps or user_name):
        uidmaps, gidmaps = [f"0:{user[0]}:1"], [f"0:{user[1]}:1"]
    uids = subuids_of(user_name, files[0]) if user_name else ()
    gids = subgids_of(group_name, files[1]) if group_name else ()
    uids += parse_ranges(uidmaps, "uid")
    gids += parse_ranges(gidmaps, "gid")
    refuse_unusable(uids, "uid map")
    refuse_unusable(gids, "gid map")
    return IdMappings(uids=uids, gids=gids) if uids or gids else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text.lstrip("0")) <= 10 and int(text) < _BITS32
