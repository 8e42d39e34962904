"""Records to and from JSON, to the byte as Go writes them."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from layerhold.errors import DamagedFile
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.records import model
from layerhold.records.codec import canonical, decode, encode, parse_array, parse_records, to_json
from layerhold.records.model import ContainerRecord, ImageRecord, LayerRecord, MountRecord

# As a store of the Go library has them.
LAYER = (
    b'{"id":"a1","names":["base"],"parent":"a0","metadata":"m","mountlabel":"system_u:object_r:x:s0",'
    b'"created":"2024-05-06T07:08:09.123456789Z","compressed-diff-digest":"sha256:01","compressed-size":10,'
    b'"diff-digest":"sha256:02","toc-digest":"sha256:03","diff-size":20,"compression":2,"uidset":[0,7],"gidset":[0],'
    b'"flags":{"a":true,"b":[1,"x"],"incomplete":false},'
    b'"uidmap":[{"container_id":0,"host_id":100000,"size":65536}],'
    b'"gidmap":[{"container_id":0,"host_id":200000,"size":65536}],"big-data-names":["k"]}'
)
IMAGE = (
    b'{"id":"i1","digest":"sha256:04","names":["localhost/demo:1"],"names-history":["localhost/demo:0"],"layer":"a1",'
    b'"mapped-layers":["a2"],"metadata":"{}","big-data-names":["manifest"],"big-data-sizes":{"manifest":3},'
    b'"big-data-digests":{"manifest":"sha256:04"},"created":"2024-05-06T07:08:09+02:00","flags":{"x":1}}'
)
CONTAINER = (
    b'{"id":"c1","names":["box"],"image":"i1","layer":"a3","metadata":"m","big-data-names":["k"],'
    b'"big-data-sizes":{"k":1},"big-data-digests":{"k":"sha256:05"},"created":"0001-01-01T00:00:00Z",'
    b'"uidmap":[{"container_id":0,"host_id":1,"size":2}],"gidmap":[{"container_id":0,"host_id":1,"size":2}],'
    b'"flags":{"MountLabel":"","MountOpts":["nodev"],"ProcessLabel":""}}'
)
MOUNT = b'{"id":"a3","path":"/run/x","count":2}'

KINDS: list[tuple[type[Any], bytes, bytes]] = [
    (LayerRecord, LAYER, b'{"id":"","created":"0001-01-01T00:00:00Z"}'),
    (ImageRecord, IMAGE, b'{"id":"","created":"0001-01-01T00:00:00Z"}'),
    (ContainerRecord, CONTAINER, b'{"id":"","image":"","layer":"","created":"0001-01-01T00:00:00Z"}'),
    (MountRecord, MOUNT, b'{"id":"","path":"","count":0}'),
]


@pytest.mark.parametrize(("kind", "full", "empty"), KINDS)
def test_the_bytes_of_go(kind: type[Any], full: bytes, empty: bytes) -> None:
    assert encode(decode(kind, json.loads(full))) == full
    assert encode(kind(id="")) == empty
    nulls = dict.fromkeys(json.loads(full))
    assert encode(decode(kind, nulls)) == encode(decode(kind, {})) == empty


@pytest.mark.parametrize(("kind", "full", "empty"), KINDS)
def test_keys_of_any_case_and_unknown_ones(kind: type[Any], full: bytes, empty: bytes) -> None:
    loud = {key.upper(): value for key, value in json.loads(full).items()}
    assert decode(kind, loud) == decode(kind, json.loads(full))
    assert canonical(kind, {"Id": 1, "other": 2, "ID": 3}) == {"id": 3, "other": 2}
    assert encode(decode(kind, {"x-new": {"b": 1, "a": [None, 1.5]}, **json.loads(full)})) == (
        full[:-1] + b',"x-new":{"b":1,"a":[null,1.5]}}'
    )


def test_values() -> None:
    layer = decode(LayerRecord, json.loads(LAYER))
    assert (layer.names, layer.uids, layer.compression, layer.incomplete) == (("base",), (0, 7), 2, False)
    assert layer.mappings == IdMappings(
        uids=(IdRange(container=0, host=100000, size=65536),), gids=(IdRange(container=0, host=200000, size=65536),)
    )
    assert decode(LayerRecord, {"id": "x", "flags": {"incomplete": True}}).incomplete
    assert not decode(LayerRecord, {"id": "x", "flags": {"incomplete": "true"}}).incomplete
    assert decode(LayerRecord, {"id": "x", "uidmap": []}).mappings is None
    assert decode(ContainerRecord, {"gidmap": [{"Container_ID": 3}]}).mappings == IdMappings(
        gids=(IdRange(container=3, host=0, size=0),)
    )


def test_maps_are_sorted_and_an_empty_time_is_the_zero_time() -> None:
    record = ImageRecord(id="i", created="", big_data_sizes={"b": 1, "a": 2}, flags={"z": {"y": 1, "x": 2}, "a": ()})
    assert encode(record) == (
        b'{"id":"i","big-data-sizes":{"a":2,"b":1},"created":"0001-01-01T00:00:00Z","flags":{"a":[],"z":{"x":2,"y":1}}}'
    )


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (LayerRecord, "id", 5),
        (LayerRecord, "names", "x"),
        (LayerRecord, "names", ["x", 1]),
        (LayerRecord, "parent", False),
        (LayerRecord, "diff-size", 1.0),
        (LayerRecord, "compression", True),
        (LayerRecord, "uidset", [0, "1"]),
        (LayerRecord, "gidset", 3),
        (LayerRecord, "flags", []),
        (LayerRecord, "uidmap", {}),
        (LayerRecord, "uidmap", [1]),
        (LayerRecord, "gidmap", [{"size": "1"}]),
        (ContainerRecord, "big-data-sizes", "x"),
        (MountRecord, "count", "1"),
    ],
)
def test_a_wrong_type_names_the_key(kind: type[Any], key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        decode(kind, {"id": "x", key: value})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<a>&\u2028\u2029", rb'"\u003ca\u003e\u0026\u2028\u2029"'),
        ("\b\f\n\r\t\x01\x1f\x7f", rb'"\u0008\u000c\n\r\t\u0001\u001f' + b'\x7f"'),
        ('"\\/', rb'"\"\\/"'),
        (r"\b\f", rb'"\\b\\f"'),
        ("\\\b\\\\\f", rb'"\\\u0008\\\\\u000c"'),
        ("ä€😀", '"ä€😀"'.encode()),
        ("a\udcff\udc80b", rb'"a\ufffd\ufffdb"'),
    ],
)
def test_escapes(text: str, wanted: bytes) -> None:
    assert to_json(text) == wanted
    assert to_json({text: text}) == b"{" + wanted + b":" + wanted + b"}"


def test_what_json_does_not_have_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))


def test_parse_records_keeps_the_bytes_of_each_record() -> None:
    records = [b'{"id":"a", "x": [1, {"y": "}],[{"}]}', '{"id":"ä\\u00e4"}'.encode(), b"{}", b'{\n"id": null }']
    for data in (b"[" + b",".join(records) + b"]", b"\n [ " + b" , ".join(records) + b"\t]\r\n"):
        found = parse_records(data, "layers.json")
        assert [raw for raw, _values in found] == records
        assert [values for _raw, values in found] == parse_array(data, "layers.json")
        assert [values for _raw, values in found] == [json.loads(record) for record in records]


@pytest.mark.parametrize("data", [b"", b" \n", b"null", b" null\n", b"[]", b" [ ]\n"])
def test_nothing(data: bytes) -> None:
    assert parse_array(data, "layers.json") == []
    assert parse_records(data, "layers.json") == []


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"{}", "line 1, column 1 (byte 0)"),
        (b'[{"id":"a"},', "line 1, column 13 (byte 12)"),
        (b'[{"id":"a"}\n{"id":"b"}]', "line 2, column 1 (byte 12)"),
        ('[{"id":"ä"},\n {"id":}]'.encode(), "line 2, column 8 (byte 21)"),
        (b'[{"id":"a"}', "line 1, column 12 (byte 11)"),
        (b'[{"id":"a"}]\n[]', "line 2, column 1 (byte 13)"),
        (b"[1]", "line 1, column 2 (byte 1)"),
        (b"[null]", "line 1, column 2 (byte 1)"),
        (b'[{},{"x":NaN}]', "line 1, column 5 (byte 4)"),
        (b'[{"x":1e999}]', "line 1, column 2 (byte 1)"),
        (b'[{"x":' + b"9" * 5000 + b"}]", "line 1, column 2 (byte 1)"),
        (b'[{"x":' + b"[" * 200000, "line 1, column 2 (byte 1)"),
        (b'[{"id":"\xff"}]', "byte 8"),
        (b"\0" * 4096, "line 1, column 1 (byte 0)"),
        (b"nullx", "line 1, column 1 (byte 0)"),
        (b'[{"id":"a\nb"}]', "line 1, column 10 (byte 9)"),
    ],
)
def test_damage_is_named_with_its_place(data: bytes, where: str) -> None:
    with pytest.raises(DamagedFile, match=re.escape(f'loading "/x/layers.json": {where}')):
        parse_array(data, "/x/layers.json")
    with pytest.raises(DamagedFile, match=re.escape(f'loading "/x/layers.json": {where}')):
        parse_records(data, "/x/layers.json")


def test_now(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", model.now())
    for ns, wanted in (
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
        (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"),
    ):
        monkeypatch.setattr(time, "time_ns", lambda ns=ns: ns)
        assert model.now() == wanted
