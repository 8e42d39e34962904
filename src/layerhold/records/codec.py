"""Records to and from the JSON of the store's files, written as Go's encoder writes them.

One line, no spaces, keys in the order of the tables below, empty optional ones left out, keys of maps sorted; `<`, `>`,
`&`, U+2028 and U+2029 escaped. Go matches keys without regard to case; `canonical` gives them the spelling of the
tables. Keys that are not in the table come back after the others (Go's programs drop them at the next save).

What is no JSON, or could not be written again as JSON (NaN, numbers beyond a float), is damage: Go refuses such files,
too. How a file is written again without encoding what did not change is in splice.py.
"""

from __future__ import annotations

import gc

from layerhold.blocks import contextmanager
from layerhold.errors import DamagedFile
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.records import json_text
from layerhold.records.model import NEVER, ContainerRecord, ImageRecord, LayerRecord, MountRecord
from layerhold.values import TypeVar, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    R = TypeVar("R", bound=Value)
else:
    R = None

# How a field is read and written. "uidmap" and "gidmap" are the two lists that make up IdMappings.
TEXT, TEXTS, NUMBER, NUMBERS, MAP, UIDMAP, GIDMAP = "text", "texts", "number", "numbers", "map", "uidmap", "gidmap"


class Key(Value):
    """One key of the file: the field that it stands for, its type, and whether it is written when empty."""

    field: str
    kind: str
    always: bool = False


def _key(field: str, kind: str = TEXT, *, always: bool = False) -> Key:
    return Key(field=field, kind=kind, always=always)


_BIG_DATA = {
    "big-data-names": _key("big_data_names", TEXTS),
    "big-data-sizes": _key("big_data_sizes", MAP),
    "big-data-digests": _key("big_data_digests", MAP),
}
_CREATED = {"created": _key("created", always=True)}
_FLAGS = {"flags": _key("flags", MAP)}
_MAPS = {"uidmap": _key("mappings", UIDMAP), "gidmap": _key("mappings", GIDMAP)}

# In the order in which Go writes them (layers.go, images.go, containers.go: the struct tags).
KEYS: dict[type[Value], dict[str, Key]] = {
    LayerRecord: {
        "id": _key("id", always=True),
        "names": _key("names", TEXTS),
        "parent": _key("parent"),
        "metadata": _key("metadata"),
        "mountlabel": _key("mount_label"),
        **_CREATED,
        "compressed-diff-digest": _key("compressed_diff_digest"),
        "compressed-size": _key("compressed_size", NUMBER),
        "diff-digest": _key("diff_digest"),
        "toc-digest": _key("toc_digest"),
        "diff-size": _key("diff_size", NUMBER),
        "compression": _key("compression", NUMBER),
        "uidset": _key("uids", NUMBERS),
        "gidset": _key("gids", NUMBERS),
        **_FLAGS,
        **_MAPS,
        "big-data-names": _key("big_data_names", TEXTS),
    },
    ImageRecord: {
        "id": _key("id", always=True),
        "digest": _key("digest"),
        "names": _key("names", TEXTS),
        "names-history": _key("names_history", TEXTS),
        "layer": _key("layer"),
        "mapped-layers": _key("mapped_layers", TEXTS),
        "metadata": _key("metadata"),
        **_BIG_DATA,
        **_CREATED,
        **_FLAGS,
    },
    ContainerRecord: {
        "id": _key("id", always=True),
        "names": _key("names", TEXTS),
        "image": _key("image", always=True),
        "layer": _key("layer", always=True),
        "metadata": _key("metadata"),
        **_BIG_DATA,
        **_CREATED,
        **_MAPS,
        **_FLAGS,
    },
    MountRecord: {
        "id": _key("id", always=True),
        "path": _key("path", always=True),
        "count": _key("count", NUMBER, always=True),
    },
}


class _Plan:
    """What `decode` needs of a kind of record: all in plain dictionaries, since it runs for each of 10,000 records."""

    def __init__(self, kind: type[Value]) -> None:
        keys = KEYS[kind]
        self.keys = frozenset(keys)
        # Where a value of exactly this type is the field, as it is.
        self.plain = {name: (key.field, _AS_IT_IS[key.kind]) for name, key in keys.items() if key.kind in _AS_IT_IS}
        self.defaults = {"id": "", **kind._defaults}


_AS_IT_IS: dict[str, type] = {TEXT: str, NUMBER: int, MAP: dict}
_PLANS = {kind: _Plan(kind) for kind in KEYS}


def encode(record: Value) -> bytes:
    """Give the JSON object of a record. Raises ValueError for what JSON cannot say (NaN)."""
    values: dict[str, Any] = {}
    fields = record.__dict__
    for name, key in KEYS[type(record)].items():
        value = fields[key.field]
        if key.kind not in _AS_IT_IS:
            value = _listed(value, key.kind)
        elif key.kind == MAP and value:
            value = _sorted(value)
        if value or key.always:
            values[name] = value
    if values.get("created") == "":
        values["created"] = NEVER  # Go cannot load a store with an empty time in it.
    values.update(fields["unknown"])
    return to_json(values)


def knows(kind: type[Value]) -> Callable[[Iterable[str]], bool]:
    """Give the test whether all of some keys of JSON objects are known, in their usual spelling."""
    return _PLANS[kind].keys.issuperset


def canonical(kind: type[Value], values: dict[str, Any]) -> dict[str, Any]:
    """Give the known keys of a JSON object their usual spelling; of several spellings the last one goes."""
    keys = _PLANS[kind].keys
    if keys.issuperset(values):
        return values
    return {(name.lower() if name.lower() in keys else name): value for name, value in values.items()}


def decode(kind: type[R], values: Mapping[str, Any]) -> R:
    """Make a record of a JSON object. Raises ValueError, which names the key, for a value of the wrong type."""
    plan = _PLANS[kind]
    record = object.__new__(kind)
    fields = record.__dict__
    fields.update(plan.defaults)
    others: dict[str, Any] = {}
    for name, value in values.items():
        known = plan.plain.get(name)
        if known is not None and type(value) is known[1]:
            fields[known[0]] = value
        else:
            others[name] = value
    if others:
        _decode_others(kind, others, fields)
    return record


def _decode_others(kind: type[Value], values: dict[str, Any], fields: dict[str, Any]) -> None:
    """Fill in the fields whose values are to be looked at: lists, unknown keys, values of a wrong type."""
    keys = KEYS[kind]
    unknown: dict[str, Any] = {}
    maps: dict[str, tuple[IdRange, ...]] = {}
    for name, value in canonical(kind, values).items():
        key = keys.get(name)
        if key is None:
            unknown[name] = value
        elif value is None:
            continue
        elif key.kind in (UIDMAP, GIDMAP):
            maps[key.kind] = _ranges(name, value)
        else:
            fields[key.field] = _READ[key.kind](name, value)
    if unknown:
        fields["unknown"] = unknown
    if any(maps.values()):
        fields["mappings"] = IdMappings(uids=maps.get(UIDMAP, ()), gids=maps.get(GIDMAP, ()))


def parse_array(data: bytes, path: str) -> list[dict[str, Any]]:
    """Read the array of objects in a file.

    Absent (empty) content and `null` are an array without objects. Raises DamagedFile, which says where.
    """
    text = _text_of(data, path)
    at = _blank(text, 0)
    try:
        value, end = json_text.scan(text, at)
        if type(value) is list and _DICT.issuperset(map(type, value)) and _blank(text, end) == len(text):
            return value
    except (StopIteration, ValueError, RecursionError, SystemError):
        pass  # `parse_records` says what is wrong, and where
    return [values for _raw, values in parse_records(data, path)]


def parse_records(data: bytes, path: str) -> list[tuple[bytes, dict[str, Any]]]:
    """Take the array of objects in a file apart: for each its bytes, and what is in it. Raises DamagedFile."""
    text = _text_of(data, path)
    at = _blank(text, 0)
    if at == len(text) or (text.startswith("null", at) and _blank(text, at + 4) == len(text)):
        return []
    try:
        return _scan_array(text, at, data if text.isascii() else None)
    except _Misplaced as error:
        raise DamagedFile(path, _place(text, error.at, error.what)) from None


def _text_of(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        # Go reads invalid bytes as U+FFFD. The bytes that are kept for saving are then no longer those of the file, so
        # such a file is damage that we leave alone.
        raise DamagedFile(path, f"byte {error.start}: not UTF-8 text") from error


@contextmanager
def without_collecting() -> Iterator[None]:
    """Keep the collector quiet while many records are made, none in circles: it takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():
                # Moves what was made to the oldest generation; else all of it would be looked through at once.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def to_json(value: object) -> bytes:
    """Encode a plain value as Go's encoder does, on one line. Keys keep the order that they have.

    Raises ValueError for numbers that JSON does not have.
    """
    text = json_text.encode(value)
    for plain, escaped in _ESCAPES:
        if plain in text:
            text = text.replace(plain, escaped)
    if "\\b" in text or "\\f" in text:
        # Go has no short form for these two. Escaped backslashes are split off first, so the rest is escapes.
        parts = text.split("\\\\")
        text = "\\\\".join(part.replace("\\b", "\\u0008").replace("\\f", "\\u000c") for part in parts)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Bytes that are no UTF-8, as the operating system's names and arguments may have them.
        return "".join("\\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text).encode()


_ESCAPES = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


class _Misplaced(Exception):
    def __init__(self, at: int, what: str) -> None:
        self.at = at
        self.what = what
        super().__init__(what)


def _scan_array(text: str, at: int, raw: bytes | None) -> list[tuple[bytes, dict[str, Any]]]:
    """Read the array at `at`, and see that nothing stands behind it. `raw` are its bytes, if each is a sign."""
    if text[at] != "[":
        raise _Misplaced(at, "an array of records is expected")
    found: list[tuple[bytes, dict[str, Any]]] = []
    at = _blank(text, at + 1)
    ended = text.startswith("]", at)
    while not ended:
        value, end = _scan_object(text, at)
        found.append((text[at:end].encode() if raw is None else raw[at:end], value))
        if text.startswith(",{", end):  # as every program writes it
            at = end + 1
            continue
        at = _blank(text, end)
        ended = text.startswith("]", at)
        if not ended:
            if not text.startswith(",", at):
                raise _Misplaced(at, '"," or "]" is expected')
            at = _blank(text, at + 1)
    behind = _blank(text, at + 1)
    if behind != len(text):
        raise _Misplaced(behind, "something stands behind the array")
    return found


def _scan_object(text: str, at: int) -> tuple[dict[str, Any], int]:
    try:
        value, end = json_text.scan(text, at)
    except SystemError:
        json_text.load_errors()
        return _scan_object(text, at)
    except StopIteration as error:
        raise _Misplaced(error.value, "a value is expected") from None
    except ValueError as error:  # those from the makers of numbers do not know where they are
        raise _Misplaced(getattr(error, "pos", at), getattr(error, "msg", str(error))) from None
    except RecursionError:
        raise _Misplaced(at, "nested too deeply") from None
    if type(value) is not dict:
        raise _Misplaced(at, "a record is expected")
    return value, end


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _place(text: str, at: int, what: str) -> str:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return f"line {line}, column {column} (byte {len(text[:at].encode())}): {what}"


def _listed(value: Any, kind: str) -> list[object]:  # noqa: ANN401
    if kind in (UIDMAP, GIDMAP):
        spans = (value.uids if kind == UIDMAP else value.gids) if value else ()
        return [{"container_id": span.container, "host_id": span.host, "size": span.size} for span in spans]
    return list(value)


def _sorted(value: object) -> object:
    """Sort the keys of maps in maps, as Go does."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value


def _wrong(name: str, wanted: str, value: object) -> ValueError:
    return ValueError(f'"{name}" is to be {wanted}, not {json_text.encode(value)[:40]}')


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a text", value)
    return value


def _number(name: str, value: object) -> int:
    if type(value) is not int:
        raise _wrong(name, "a whole number", value)
    return value


_STRINGS, _INTEGERS = frozenset((str,)), frozenset((int,))
_DICT = frozenset((dict,))


def _texts(name: str, value: object) -> tuple[str, ...]:
    if type(value) is not list or not _STRINGS.issuperset(map(type, value)):
        raise _wrong(name, "a list of texts", value)
    return tuple(value)


def _numbers(name: str, value: object) -> tuple[int, ...]:
    if type(value) is not list or not _INTEGERS.issuperset(map(type, value)):
        raise _wrong(name, "a list of whole numbers", value)
    return tuple(value)


def _map(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    return value


def _ranges(name: str, value: object) -> tuple[IdRange, ...]:
    if not isinstance(value, list):
        raise _wrong(name, "a list of ranges", value)
    return tuple(_range(name, _map(name, item)) for item in value)


def _range(name: str, value: Mapping[str, object]) -> IdRange:
    values = {key.lower(): number for key, number in value.items()}
    container, host, size = (
        _number(f"{name}.{key}", values.get(key, 0)) for key in ("container_id", "host_id", "size")
    )
    return IdRange(container=container, host=host, size=size)


_READ: dict[str, Callable[[str, Any], Any]] = {
    TEXT: _text,
    TEXTS: _texts,
    NUMBER: _number,
    NUMBERS: _numbers,
    MAP: _map,
}
