"""The dialect of flags that `containers-storage` has (pkg/mflag of the Go library), and its one parser.

Long names have two dashes, short ones are one letter with one dash. A value follows as `--flag=value` or `--flag
value`; quotes around it after `=` are taken off. Yes-or-no flags take a value only after `=`. Flags end at the first
word that is none, or at `--`. Several letters behind one dash (`-jq`) are flags one by one; that this is tried before
an unknown name is refused shows in the complaints: `-gX` first lacks an argument for `-g`.
"""

from __future__ import annotations

from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # strconv.ParseBool of Go
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class FlagError(Exception):
    """The flags cannot be read. `complaints` are what is to be printed; the last is the reason."""

    def __init__(self, *complaints: str) -> None:
        self.complaints = complaints
        super().__init__(complaints[-1])


class HelpWanted(Exception):
    """`-h` or `--help` was among the flags."""


class Flag(Value):
    """One flag: its names without dashes (the first is the key of its value), what it is for, and if it is yes or no.

    A flag that takes a value may be given several times if it is `repeated`; otherwise the last one counts. `value` is
    the manual's word for the value: `FILE` and `DIRECTORY` tell the shell what to complete. `default` is what the help
    shows. One that is `own` Go's program does not have; it is not there when the command is called by that one's name.
    """

    names: tuple[str, ...]
    help: str
    yes_or_no: bool = False
    repeated: bool = False
    value: str = "TEXT"
    own: bool = False
    default: str = ""

    @property
    def spelled(self) -> str:
        """All names as they are typed."""
        return ", ".join(f"--{name}" if len(name) > 1 else f"-{name}" for name in self.names)


class Given:
    """The values of flags."""

    def __init__(self, defaults: Mapping[str, Sequence[str]] | None = None) -> None:
        self._values: dict[str, list[str]] = {key: list(values) for key, values in (defaults or {}).items()}

    def add(self, flag: Flag, value: str) -> None:
        """Note one value of `flag`."""
        self._values.setdefault(flag.names[0], []).append(value)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, default: str = "") -> str:
        """Give the last value of the flag `key`."""
        return (self._values.get(key) or [default])[-1]

    def all(self, key: str) -> list[str]:
        """Give all values of the flag `key`."""
        return self._values.get(key, [])

    def yes(self, key: str) -> bool:
        """Tell whether the flag `key` was given, and not as `--key=false`."""
        return self.get(key) in _TRUE

    def copy(self) -> Given:
        """Make another with the same values."""
        return Given(self._values)


def parse(words: Sequence[str], flags: Sequence[Flag], given: Given) -> list[str]:
    """Read flags off the front of `words` into `given`, and give the words behind. Raises FlagError, HelpWanted."""
    by_name = {f"-{name}" if len(name) > 1 else name: flag for flag in flags for name in flag.names}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, has_value, value = word[1:].partition("=")
        if not name:
            raise FlagError(f"bad flag syntax: {word}")
        if (flag := by_name.get(name)) is not None:
            _set(flag, name, _unquoted(value) if has_value else None, rest, given)
        elif name in ("h", "help", "-help"):
            raise HelpWanted
        elif name.startswith("-"):
            raise _unknown(name)
        else:
            _set_letters(by_name, name, rest, given)
    return rest


def parse_anywhere(words: Sequence[str], flags: Sequence[Flag], given: Given) -> list[str]:
    """Read flags that stand anywhere among `words`, up to `--`, and give the other words. Raises as `parse` does."""
    arguments: list[str] = []
    left = list(words)
    while left:
        rest = parse(left, flags, given)
        if left[: len(left) - len(rest)][-1:] == ["--"]:
            return [*arguments, *rest]
        arguments += rest[:1]
        left = rest[1:]
    return arguments


def _set(flag: Flag, name: str, value: str | None, rest: list[str], given: Given) -> None:
    if flag.yes_or_no:
        if value is not None and value not in _TRUE and value not in _FALSE:
            parsing = f'parsing "{value}": invalid syntax'
            raise FlagError(f'invalid boolean value "{value}" for  -{name}: strconv.ParseBool: {parsing}')
        given.add(flag, "true" if value is None else value)
    elif value is not None:
        given.add(flag, value)
    elif rest:
        given.add(flag, rest.pop(0))
    else:
        raise FlagError(f"flag needs an argument: -{name}")


def _set_letters(by_name: Mapping[str, Flag], letters: str, rest: list[str], given: Given) -> None:
    for letter in letters:
        flag = by_name.get(letter)
        if flag is None and letter == "h":
            raise HelpWanted
        if flag is None:
            raise _unknown(letters)
        try:
            _set(flag, letter, None, rest, given)
        except FlagError as error:
            raise FlagError(*error.complaints, str(_unknown(letters))) from None


def _unknown(name: str) -> FlagError:
    return FlagError(f"flag provided but not defined: -{name}")


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
