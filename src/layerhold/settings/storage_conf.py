"""One `storage.conf`: which keys there are, what each of them holds, and what a file sets, in which line.

Errors are worded as those of Go's library are, and name the file, the line and the key. Names may be in capitals. A
list may have the element `{append=true}` or `{append=false}`.
"""

from __future__ import annotations

from layerhold.errors import BadConfig
from layerhold.settings.driver_options import OF_DRIVERS
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TEXT, YES_OR_NO, COUNT, TEXTS, MAP, OLD = "string", "boolean", "integer", "list", "map", "old"

_BY_TABLE = {
    "storage": {
        "driver": TEXT,
        "driver_priority": TEXTS,
        "runroot": TEXT,
        "graphroot": TEXT,
        "imagestore": TEXT,
        "rootless_storage_path": TEXT,
        "transient_store": YES_OR_NO,
    },
    "storage.options": {
        "additionalimagestores": TEXTS,
        "additionallayerstores": TEXTS,
        "imagestore": TEXT,
        "size": TEXT,
        "mount_program": TEXT,
        "skip_mount_home": TEXT,
        "ignore_chown_errors": TEXT,
        "force_mask": COUNT,
        "mountopt": TEXT,
        "use_composefs": TEXT,
        "remap-uids": TEXT,
        "remap-gids": TEXT,
        "remap-user": TEXT,
        "remap-group": TEXT,
        "root-auto-userns-user": TEXT,
        "auto-userns-min-size": COUNT,
        "auto-userns-max-size": COUNT,
        "pull_options": MAP,
        "disable-volatile": YES_OR_NO,
        "ostree_repo": OLD,
        "thinpool": OLD,
    },
    **{f"storage.options.{driver}": dict.fromkeys(names, TEXT) for driver, names in OF_DRIVERS.items()},
}
# The tables, and what each key holds, by its full name. OLD ones hold anything, and have no effect any more.
TABLES = tuple(_BY_TABLE)
KEYS = {f"{table}.{name}": kind for table, names in _BY_TABLE.items() for name, kind in names.items()}


class Setting(Value):
    """One key (its full name) that is set to `value`, by the file or the variable `path`, there in `line` (or 0).

    `append` is what a list says about lists before it. A key that means nothing, as it is written, is not `known`.
    """

    key: str
    value: object
    path: str
    line: int = 0
    append: bool | None = None
    known: bool = True

    @property
    def origin(self) -> str:
        """Where it is set, for a person."""
        return f"{self.path}:{self.line}" if self.line else self.path


def parse(text: str, name: str) -> list[Setting]:
    """Read what the text of one file sets; keys that are not in KEYS too. `name` is the file's, for errors.

    Raises BadConfig, which names the file, the line and the key.
    """
    import tomllib

    text = text.removeprefix("\ufeff")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits.
        raise BadConfig(f'decode configuration "{name}": toml: {error}') from error
    return list(_Reader(text, name).table(document, (), ()))


class _Reader:
    """Takes the settings out of the tables of one file."""

    def __init__(self, text: str, name: str) -> None:
        from layerhold.settings.toml_lines import Lines

        self._lines = Lines(text)
        self._name = name

    def table(self, table: Mapping[str, object], known: tuple[str, ...], at: tuple[str, ...]) -> Iterator[Setting]:
        """Give what a table sets: `known` is its name as we write it, `at` as the file does."""
        for name, value in sorted(table.items(), key=_capitals_first):
            path, key = (*at, name), "" if "." in name else ".".join((*known, name.lower()))
            if key in _BY_TABLE:
                if not isinstance(value, dict):
                    raise self._wrong(path, f"type mismatch: expected table but found {_kind(value)}")
                yield from self.table(value, (*known, name.lower()), path)
            elif key in KEYS:
                yield self._setting(key, path, value)
            else:
                yield Setting(key=".".join(path), value=value, path=self._name, line=self._line(path), known=False)

    def _setting(self, key: str, at: tuple[str, ...], value: object) -> Setting:
        append = None
        if KEYS[key] == TEXTS:
            value, append = self._texts(at, value)
        elif KEYS[key] == MAP:
            if not isinstance(value, dict):
                raise self._wrong(at, f"type mismatch for map[string]string: expected table but found {_kind(value)}")
            for name, item in value.items():
                self._check((*at, name), TEXT, item)
        elif KEYS[key] != OLD:
            self._check(at, KEYS[key], value)
        return Setting(key=key, value=value, path=self._name, line=self._line(at), append=append)

    def _check(self, at: tuple[str, ...], wanted: str, value: object) -> None:
        if _kind(value) != {TEXT: "string", YES_OR_NO: "bool", COUNT: "int64"}[wanted]:
            why = f"incompatible types: TOML value has type {_kind(value)}; destination has type {wanted}"
            raise self._wrong(at, why, _way_to_write(at[-1], wanted, value))
        if isinstance(value, int) and wanted == COUNT and not 0 <= value < 1 << 32:
            raise self._wrong(at, f"{value} is out of range for uint32")

    def _texts(self, at: tuple[str, ...], value: object) -> tuple[tuple[str, ...], bool | None]:
        if not isinstance(value, list):
            hint = f'write it as a list: {at[-1]} = ["{value}"]' if isinstance(value, str) else ""
            raise self._wrong(at, f"unable to cast to interface array: {_shown(value)}", hint)
        texts, append = [], None
        for item in value:
            if isinstance(item, str):
                texts.append(item)
            elif isinstance(item, dict):
                append = self._append(at, item, append)
            else:
                raise self._wrong(at, f"unsupported item in attributed string slice: {_shown(item)}")
        return tuple(texts), append

    def _append(self, at: tuple[str, ...], item: Mapping[str, object], append: bool | None) -> bool | None:
        for name, value in item.items():
            if name != "append":
                raise self._wrong(at, f'unsupported key "{name}" in map: {_shown(item)}')
            if not isinstance(value, bool):
                raise self._wrong(at, "unable to cast append to bool: append")
            append = value
        return append

    def _wrong(self, at: tuple[str, ...], why: str, hint: str = "") -> BadConfig:
        where = f'toml: line {self._line(at)} (last key "{".".join(at)}")'
        return BadConfig(f'decode configuration "{self._name}": {where}: {why}', hint=hint)

    def _line(self, at: Sequence[str]) -> int:
        return self._lines.of(at)


def _capitals_first(item: tuple[str, object]) -> bool:
    """Sort names that are not written as we know them before those that are: the latter go before the former."""
    return item[0] == item[0].lower()


def _way_to_write(name: str, wanted: str, value: object) -> str:
    if wanted == TEXT and isinstance(value, bool | int | float):
        return f'write it with quotes: {name} = "{_shown(value)}"'
    if wanted != TEXT and isinstance(value, str):
        example = "true" if wanted == YES_OR_NO else "0o700" if name == "force_mask" else "1024"
        return f"write it without quotes, as in {name} = {example}"
    return ""


def _kind(value: object) -> str:
    """Name the type of a value as Go's errors do."""
    if isinstance(value, list):
        return "[]map[string]any" if value and all(isinstance(item, dict) for item in value) else "[]any"
    names = {str: "string", bool: "bool", int: "int64", float: "float64", dict: "map[string]any"}
    return names.get(type(value), "time.Time")


def _shown(value: object) -> str:
    """Show a value as Go's errors do."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{name}:{_shown(item)}' for name, item in sorted(value.items()))}]"
    return str(value)
