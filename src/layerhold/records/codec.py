"""Records to and from the JSON of the store's files, written as Go's encoder writes them.

One line, no spaces, keys in the order of the tables below, empty optional ones left out, keys of maps sorted; `<`, `>`,
`&`, U+2028 and U+2029 escaped. Go matches keys without regard to case, so that is done here where a key is not found as
it is spelled. Keys that are not in the table come back after the others (Go's programs drop them at the next save).
"""

from __future__ import annotations

import json

from layerhold.errors import DamagedFile
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.records.model import ContainerRecord, ImageRecord, LayerRecord, MountRecord
from layerhold.values import TypeVar, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    R = TypeVar("R", bound=Value)
else:
    R = None

# How a field is read and written. "maps" are the two lists that make up IdMappings.
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


def encode(record: Value) -> bytes:
    """Give the JSON object of a record."""
    values: dict[str, Any] = {}
    for name, key in KEYS[type(record)].items():
        value = _plain(getattr(record, key.field), key.kind)
        if value or key.always:
            values[name] = value
    values.update(getattr(record, "unknown", {}))
    return to_json(values)


def decode(kind: type[R], values: Mapping[str, Any]) -> R:
    """Make a record of a JSON object. Raises ValueError, which names the key, for a value of the wrong type."""
    keys = KEYS[kind]
    fields: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    maps: dict[str, tuple[IdRange, ...]] = {}
    for name, value in values.items():
        known = name if name in keys else _spelled(name, keys)
        if known is None:
            unknown[name] = value
        elif value is not None:
            key = keys[known]
            read = _READ[key.kind](name, value)
            if key.kind in (UIDMAP, GIDMAP):
                maps[key.kind] = read
            else:
                fields[key.field] = read
    if maps.get(UIDMAP) or maps.get(GIDMAP):
        fields["mappings"] = IdMappings(uids=maps.get(UIDMAP, ()), gids=maps.get(GIDMAP, ()))
    fields.setdefault("id", "")
    return kind(**fields, unknown=unknown)


def parse_array(data: bytes, path: str) -> list[tuple[bytes, dict[str, Any]]]:
    """Take the array of objects in a file apart: for each its bytes, and what is in it.

    Absent (empty) content and `null` are an array without objects. Raises DamagedFile, which says where.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        # Go reads invalid bytes as U+FFFD. The bytes that are kept for saving are then no longer those of the file, so
        # such a file is damage that we leave alone.
        raise DamagedFile(path, f"byte {error.start}: not UTF-8 text") from error
    at = _blank(text, 0)
    if at == len(text) or (text.startswith("null", at) and _blank(text, at + 4) == len(text)):
        return []
    found: list[tuple[bytes, dict[str, Any]]] = []
    try:
        _scan_array(text, at, found)
    except _Misplaced as error:
        raise DamagedFile(path, _place(text, error.at, error.what)) from None
    except json.JSONDecodeError as error:
        raise DamagedFile(path, _place(text, error.pos, error.msg)) from error
    except RecursionError:
        raise DamagedFile(path, "nested too deeply") from None
    return found


def to_json(value: object) -> bytes:
    """Encode a plain value as Go's encoder does, on one line. Keys keep the order that they have."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
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
_decoder = json.JSONDecoder()


class _Misplaced(Exception):
    def __init__(self, at: int, what: str) -> None:
        self.at = at
        self.what = what
        super().__init__(what)


def _scan_array(text: str, at: int, found: list[tuple[bytes, dict[str, Any]]]) -> None:
    """Fill `found` from the array at `at`, and see that nothing stands behind it."""
    scan = _decoder.raw_decode
    if text[at] != "[":
        raise _Misplaced(at, "an array of records is expected")
    at = _blank(text, at + 1)
    ended = text.startswith("]", at)
    while not ended:
        value, end = scan(text, at)
        if not isinstance(value, dict):
            raise _Misplaced(at, "a record is expected")
        found.append((text[at:end].encode(), value))
        at = _blank(text, end)
        ended = text.startswith("]", at)
        if not ended:
            if not text.startswith(",", at):
                raise _Misplaced(at, '"," or "]" is expected')
            at = _blank(text, at + 1)
    if _blank(text, at + 1) != len(text):
        raise _Misplaced(at + 1, "something stands behind the array")


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _place(text: str, at: int, what: str) -> str:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return f"line {line}, column {column} (byte {len(text[:at].encode())}): {what}"


def _spelled(name: str, keys: Mapping[str, Key]) -> str | None:
    """Find a key that is `name` but for upper and lower case."""
    lower = name.lower()
    return lower if lower in keys else None


def _plain(value: Any, kind: str) -> object:  # noqa: ANN401
    if kind in (UIDMAP, GIDMAP):
        spans = (value.uids if kind == UIDMAP else value.gids) if value else ()
        return [{"container_id": span.container, "host_id": span.host, "size": span.size} for span in spans]
    if kind == MAP:
        return {key: value[key] for key in sorted(value)}
    return list(value) if isinstance(value, tuple) else value


def _wrong(name: str, wanted: str, value: object) -> ValueError:
    return ValueError(f'"{name}" is to be {wanted}, not {json.dumps(value)[:40]}')


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a text", value)
    return value


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(name, "a whole number", value)
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise _wrong(name, "a list of texts", value)
    return tuple(value)


def _numbers(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _wrong(name, "a list of whole numbers", value)
    return tuple(_number(name, item) for item in value)


def _map(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    return value


def _ranges(name: str, value: object) -> tuple[IdRange, ...]:
    if not isinstance(value, list):
        raise _wrong(name, "a list of ranges", value)
    return tuple(_range(name, _map(name, item)) for item in value)


def _range(name: str, value: Mapping[str, object]) -> IdRange:
    container, host, size = (_number(f"{name}.{key}", value.get(key, 0)) for key in ("container_id", "host_id", "size"))
    return IdRange(container=container, host=host, size=size)


_READ: dict[str, Callable[[str, Any], Any]] = {
    TEXT: _text,
    TEXTS: _texts,
    NUMBER: _number,
    NUMBERS: _numbers,
    MAP: _map,
    UIDMAP: _ranges,
    GIDMAP: _ranges,
}
