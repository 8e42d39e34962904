"""The IDs of layers, images and containers: how they are made, and which are refused."""

from __future__ import annotations

import os

from layerhold.errors import InvalidID

# A file of an item is named after it with up to 48 more characters ("-" and ".tar-split.gz", ".pending-", a temporary
# file's digits), and a name has 255 bytes at most. Go's own programs cannot remove what they made under a longer one.
_LONGEST = 200


def new_id() -> str:
    """Make a random ID: 64 hex digits, whose first 12 are never a decimal number (pkg/stringid of the Go library)."""
    while True:
        id = os.urandom(32).hex()
        if not id[:12].isdecimal():
            return id


def check_id(id: str, *, reserved: frozenset[str] = frozenset()) -> str:
    """Return `id` if it can safely name files, or raise InvalidID, which says why not.

    `reserved` are the driver's own names. Go takes "../b" and "l", and then works on what lies there.
    """
    try:
        raw = os.fsencode(id)
    except UnicodeEncodeError:
        raise InvalidID(f"{id!r} is not valid text") from None
    if not id:
        raise InvalidID("an empty ID")
    if "/" in id or "\0" in id:
        raise InvalidID(f"{id!r} has a slash or a NUL in it")
    if id.startswith(".") or id in reserved:
        raise InvalidID(f'"{id}" is a name that the store needs itself')
    if len(raw) > _LONGEST:
        raise InvalidID(f"an ID of {len(raw)} bytes, more than {_LONGEST}")
    return id


def is_plain(id: str) -> bool:
    """Tell whether `id` looks as programs make them: 64 hex digits."""
    return len(id) == 64 and not id.strip("0123456789abcdef")
