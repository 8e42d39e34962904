"""Who may use which IDs besides his own: /etc/subuid and /etc/subgid (subuid(5)).

A line is `name:start:length`; blank lines and lines that begin with `#` are passed over. A line is a user's if it has
his name or, as digits, his user ID; the name `ALL` asks for the lines of everybody. The same holds of /etc/subgid,
where the ID is the user ID of the user who is called as the group. Source: `containers-storage` 1.64, as it was seen to
do it with `--subuidmap`; that program does not ask a name service for ranges either.
"""

from __future__ import annotations

from layerhold.errors import NoSubIds, quoted
from layerhold.ids.mappings import IdRange, refuse_unusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"
_EVERYBODY = "ALL"
_LARGEST = 2**63 - 1


def subuids_of(user: str, path: str = SUBUID) -> tuple[IdRange, ...]:
    """Give the ranges that `user` may use as user IDs, by their starts; container IDs follow each other from 0.

    Raises NoSubIds (none for him, a line that is malformed), InvalidMappings (empty or overlapping ones), OSError.
    """
    return _ranges(user, path, f"no subuid ranges found for user {quoted(user)} in {path}")


def subgids_of(group: str, path: str = SUBGID) -> tuple[IdRange, ...]:
    """Give the ranges that `group` may use as group IDs; everything else is as for `subuids_of`."""
    return _ranges(group, path, f"no subgid ranges found for group {quoted(group)} in {path}")


def parse_subids(text: str, names: Collection[str], path: str) -> list[tuple[int, int]]:
    """Give start and length of the lines that belong to one of `names`, sorted; `path` is for errors.

    Raises NoSubIds.
    """
    found = []
    for line in _lines(text):
        parts = line.split(":")
        if len(parts) != 3:
            raise NoSubIds(path, f"cannot parse subuid/gid information: Format not correct for {path} file")
        if parts[0] in names or _EVERYBODY in names:
            found.append((_number(parts[1], path), _number(parts[2], path)))
    return sorted(found)


def _ranges(name: str, path: str, none: str) -> tuple[IdRange, ...]:
    with open(path, "rb") as file:
        text = file.read().decode("utf-8", "surrogateescape")
    ranges, next_free = [], 0
    for start, length in parse_subids(text, _names(name), path):
        ranges.append(IdRange(container=next_free, host=start, size=length))
        next_free += length
    if not ranges:
        raise NoSubIds(path, none, hint=f"add a line such as {name}:100000:65536 to {path}")
    refuse_unusable(ranges, path)
    return tuple(ranges)


def _names(name: str) -> set[str]:
    import pwd

    try:
        return {name, str(pwd.getpwnam(name).pw_uid)}
    except (KeyError, ValueError):  # ValueError: a NUL in the name
        return {name}


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield stripped


def _number(text: str, path: str) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    problem = "invalid syntax"
    if digits.isascii() and digits.isdigit():
        if len(digits.lstrip("0")) < 20 and int(digits) <= _LARGEST:
            return -int(digits) if text[0] == "-" else int(digits)
        problem = "value out of range"
    where = f"string to int conversion failed during subuid/gid parsing of {path}"
    raise NoSubIds(path, f"{where}: strconv.Atoi: parsing {quoted(text)}: {problem}")
