"""Records of any content come back whole, are written as Go writes them, and no file makes the reader stumble."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layerhold.errors import DamagedFile
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.records.codec import KEYS, decode, encode, parse_array, parse_records, to_json
from layerhold.records.model import ContainerRecord, ImageRecord, LayerRecord, MountRecord
from layerhold.values import Value

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ANY_TEXT = st.text(max_size=12)  # lone surrogates, too: bytes of the operating system that are no UTF-8
NUMBER = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBER | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
RANGES = st.lists(st.builds(IdRange, container=NUMBER, host=NUMBER, size=NUMBER), max_size=2).map(tuple)
BY_KIND: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "texts": st.lists(TEXT, max_size=3).map(tuple),
    "number": NUMBER,
    "numbers": st.lists(NUMBER, max_size=3).map(tuple),
    "map": st.dictionaries(TEXT, PLAIN, max_size=3),
}
MAPPINGS = st.builds(IdMappings, uids=RANGES, gids=RANGES).map(lambda maps: None if maps.identity else maps)


def records(kind: type[Any]) -> st.SearchStrategy[Value]:
    fields = {key.field: BY_KIND[key.kind] for key in KEYS[kind].values() if key.kind in BY_KIND}
    if "mappings" in kind._fields:
        fields["mappings"] = MAPPINGS
    if "created" in fields:
        fields["created"] = TEXT.filter(bool)
    known = KEYS[kind]
    unknown = st.dictionaries(TEXT.filter(lambda name: name.lower() not in known), PLAIN, max_size=3)
    return st.builds(kind, **fields, unknown=unknown)


@pytest.mark.parametrize("kind", [LayerRecord, ImageRecord, ContainerRecord, MountRecord])
@given(data=st.data())
def test_every_record_comes_back(kind: type[Any], data: st.DataObject) -> None:
    record = data.draw(records(kind))
    raw = encode(record)
    (found,) = parse_records(b"[" + raw + b"]", "x")
    assert found[0] == raw
    assert decode(kind, found[1]) == record
    assert encode(decode(kind, found[1])) == raw


def as_go_escapes(text: str) -> str:
    """Sign by sign, by the rules of encoding/json and of the library's own encoder."""
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    out = []
    for sign in text:
        if sign in short:
            out.append(short[sign])
        elif sign < " " or sign in "<>&\u2028\u2029":
            out.append(f"\\u{ord(sign):04x}")
        else:
            out.append("\\ufffd" if "\ud800" <= sign <= "\udfff" else sign)
    return '"' + "".join(out) + '"'


@given(ANY_TEXT | st.text('\\bf\b\f"<\udc80', max_size=12))
@example("\\b\b\\\\f\f")
def test_texts_are_escaped_as_go_does(text: str) -> None:
    assert to_json(text).decode() == as_go_escapes(text)
    assert to_json([{text: text}]).decode() == f"[{{{as_go_escapes(text)}:{as_go_escapes(text)}}}]"


def must_end_well(data: bytes) -> None:
    try:
        found = parse_records(data, "layers.json")
    except DamagedFile as error:
        assert str(error).startswith('loading "layers.json": ')  # noqa: PT017 - not every input is damage
        with pytest.raises(DamagedFile):
            parse_array(data, "layers.json")
        return
    assert parse_array(data, "layers.json") == [values for _raw, values in found]
    assert [json.loads(raw) for raw, _values in found] == [values for _raw, values in found]
    for kind in KEYS:
        for _raw, values in found:
            try:
                record = decode(kind, values)
            except ValueError:
                continue
            json.loads(encode(record))


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    must_end_well(data)


GOOD = (
    b'[{"id":"a","names":["n"],"created":"x","diff-size":-1.5e3,"uidset":[1],"flags":{"incomplete":true,"\\u00e4":null}'
    b',"uidmap":[{"container_id":0,"host_id":1,"size":2}]}, {"ID":"\xc3\xa4","big-data-sizes":{"k":1}}]'
)
PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\ud800",
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"\xff",
    b"",
]


@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 5), st.sampled_from(PIECES)), max_size=4))
def test_a_file_with_pieces_cut_out_and_put_in(edits: list[tuple[int, int, bytes]]) -> None:
    data = GOOD
    for at, cut, piece in edits:
        data = data[:at] + piece + data[at + cut :]
    must_end_well(data)


@given(st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join))
def test_pieces_in_any_order(data: bytes) -> None:
    must_end_well(b"[" + data)


VALUES = st.dictionaries(st.sampled_from(sorted({name for keys in KEYS.values() for name in keys})), PLAIN, max_size=6)


@given(VALUES)
def test_values_of_any_type_name_the_key_or_make_a_record(values: dict[str, Any]) -> None:
    for kind, keys in KEYS.items():
        try:
            encode(decode(kind, values))
        except ValueError as error:
            assert any(name in str(error) for name in values if name in keys)  # noqa: PT017 - see above
