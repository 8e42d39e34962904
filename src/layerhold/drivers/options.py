"""The options of a driver: `key=value`, with or without the driver's name before the key.

Options of other drivers are passed over, as Go does; `.key` is an old form of `<driver>.key`.
"""

from __future__ import annotations

from layerhold.errors import BadConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Those that Go knows; options of others are an error, but for the driver that is used.
DRIVERS = frozenset({"btrfs", "overlay", "overlay2", "vfs", "zfs"})
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # strconv.ParseBool of Go
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class Options:
    """The options that one driver was given; several values of one key are kept in their order."""

    def __init__(self, values: dict[str, list[str]]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> str:
        """Give the last value of `key`, or ""."""
        return self._values.get(key, [""])[-1]

    def all(self, key: str) -> list[str]:
        """Give every value of `key`, lists with commas taken apart."""
        return [item for value in self._values.get(key, []) for item in value.split(",") if item]

    def flag(self, key: str) -> bool:
        """Give a yes or no: no, if it was not given. Raises BadConfig for anything else."""
        return [is_true(value) for value in self._values.get(key, ["false"])][-1]


def is_true(value: str) -> bool:
    """Read a yes or no as Go does. Raises BadConfig for anything else."""
    if value not in _TRUE | _FALSE:
        raise BadConfig(f'strconv.ParseBool: parsing "{value}": invalid syntax')
    return value in _TRUE


def parse(options: Sequence[str], driver: str, known: frozenset[str]) -> Options:
    """Take the options of `driver` out of `options`. Raises BadConfig for what is malformed or not known."""
    values: dict[str, list[str]] = {}
    for option in options:
        key, found, value = option.partition("=")
        if not found:
            raise BadConfig(f"unable to parse key/value option: {option}")
        prefix, dot, rest = key.lower().partition(".")
        if not dot:
            prefix, rest = "", prefix
        if prefix and prefix not in DRIVERS and prefix != driver:
            raise BadConfig(f'unknown driver "{prefix}" in option "{option}"')
        if prefix and prefix not in (driver, f"{driver}2"):
            continue
        if rest not in known:
            raise BadConfig(f'unknown option "{rest}" ("{option}")')
        values.setdefault(rest, []).append(value)
    return Options(values)
