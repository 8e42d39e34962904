"""Sizes in options, read and written as Go's drivers do: `10G`, `1.5 mb` and `1048576` by powers of 1024."""

from __future__ import annotations

from layerhold.errors import BadConfig
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_UNITS = "kmgtp"
_MOST = 2**63 - 1
_MOST_FILES = 2**64 - 1
_SHOWN = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class Limits(Value):
    """How many bytes and how many files a layer may have; 0 is no limit."""

    size: int = 0
    inodes: int = 0


def read_limits(options: Iterable[tuple[str, str]], default: Limits) -> Limits:
    """Read the options `size` and `inodes` of one layer. Raises BadConfig, in Go's words."""
    limits = default
    for key, value in options:
        if key.lower() == "size":
            limits = limits.replace(size=parse_size(value))
        elif key.lower() == "inodes":
            limits = limits.replace(inodes=_count(value))
        else:
            raise BadConfig(f"unknown option {key.lower()}")
    return limits


def _count(text: str) -> int:
    if not text or text.strip("0123456789"):
        raise BadConfig(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text[:30]) > _MOST_FILES:
        raise BadConfig(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def parse_size(text: str) -> int:
    """Give a number of bytes; a letter of `kmgtp` multiplies, and `b` or `ib` behind it means nothing.

    Raises BadConfig, in Go's words.
    """
    end = max((index for index, character in enumerate(text) if character in "0123456789. "), default=-1) + 1
    unit = text[end:].lower()
    size = _number(text[:end].removesuffix(" ")) if end else None
    if size is None:
        raise BadConfig(f"invalid size: '{text}'")
    if unit in ("", "b"):
        power = 0
    elif unit[0] in _UNITS and unit[1:] in ("", "b", "ib"):
        power = _UNITS.index(unit[0]) + 1
    else:
        raise BadConfig(f"invalid suffix: '{unit}'")
    return min(int(size * 1024**power), _MOST)


def _number(text: str) -> float | None:
    try:
        return float(text) if set(text) <= set("0123456789.e") else None
    except ValueError:
        return None


def shown_size(size: int) -> str:
    """Give a size by powers of 1000, with four digits at most: `10.49MB`."""
    shown, unit = float(size), 0
    while shown >= 1000 and unit < len(_SHOWN) - 1:
        shown /= 1000
        unit += 1
    return f"{shown:.4g}{_SHOWN[unit]}"
