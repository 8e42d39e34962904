"""The dialect of flags that `containers-storage` has (pkg/mflag of the Go library).

Long names have two dashes, short ones are one letter with one dash, and short yes-or-no flags may stand together
(`-jq`). A value follows as `--flag=value` or `--flag value`; quotes around it after `=` are taken off. Flags end at the
first word that is none, or at `--`.
"""

from __future__ import annotations

from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # strconv.ParseBool of Go
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class FlagError(Exception):
    """The flags cannot be read; the text says which."""


class HelpWanted(Exception):
    """`--help` was among the flags."""


class Flag(Value):
    """One flag: its names without dashes (the first is the key of its value), what it is for, and if it is yes or no.

    A flag that takes a value may be given several times if it is `repeated`; otherwise the last one counts.
    """

    names: tuple[str, ...]
    help: str
    yes_or_no: bool = False
    repeated: bool = False


class Given:
    """The values of flags."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, flag: Flag, value: str) -> None:
        """Note one value of `flag`."""
        self._values.setdefault(flag.names[0], []).append(value)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, default: str = "") -> str:
        """Give the last value of the flag `key`."""
        return self._values.get(key, [default])[-1]

    def all(self, key: str) -> list[str]:
        """Give all values of the flag `key`."""
        return self._values.get(key, [])

    def yes(self, key: str) -> bool:
        """Tell whether the flag `key` was given, and not as `--key=false`."""
        return self.get(key) in _TRUE


def parse(words: Sequence[str], flags: Sequence[Flag], given: Given) -> list[str]:
    """Read flags off the front of `words` into `given`, and give the words behind. Raises FlagError, HelpWanted."""
    by_name = {name: flag for flag in flags for name in flag.names}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, has_value, value = word.lstrip("-").partition("=")
        dashes = "--" if word.startswith("--") else "-"
        if dashes == "--" and name == "help":
            raise HelpWanted
        if has_value:
            _set(_known(by_name, dashes, name), dashes + name, _unquoted(value), given)
        elif dashes == "-" and len(name) > 1:
            _set_together(by_name, name, given)
        else:
            _set_next(_known(by_name, dashes, name), word, rest, given)
    return rest


def _known(by_name: dict[str, Flag], dashes: str, name: str) -> Flag:
    flag = by_name.get(name)
    if flag is None or (len(name) == 1) != (dashes == "-"):
        raise FlagError(f"flag provided but not defined: {dashes}{name}")
    return flag


def _set(flag: Flag, word: str, value: str, given: Given) -> None:
    if flag.yes_or_no and value not in _TRUE and value not in _FALSE:
        raise FlagError(f'invalid boolean value "{value}" for {word}')
    given.add(flag, value)


def _set_next(flag: Flag, word: str, rest: list[str], given: Given) -> None:
    if flag.yes_or_no:
        given.add(flag, "true")
    elif rest:
        given.add(flag, rest.pop(0))
    else:
        raise FlagError(f"flag needs an argument: {word}")


def _set_together(by_name: dict[str, Flag], letters: str, given: Given) -> None:
    for letter in letters:
        flag = _known(by_name, "-", letter)
        if not flag.yes_or_no:
            raise FlagError(f"flag needs an argument: -{letter}")
        given.add(flag, "true")


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
