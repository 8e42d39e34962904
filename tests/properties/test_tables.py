"""A table does with its files what a plain list of records would: whatever is put, removed and saved, in any order."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from layerhold import lock
from layerhold.lock import LockFile
from layerhold.records import splice
from layerhold.records.model import LayerRecord
from layerhold.records.table import Table

IDS = st.sampled_from(["a", "b", "ab", 'q"', "ä", "\\", "}", "long" * 5])
NESTED = st.sampled_from([{}, {"x": [{"id": "a"}, {"id": "b"}]}, {"y": {"z": "}],[{"}}, {"incomplete": False}])
RECORDS = st.fixed_dictionaries(
    {"id": IDS},
    optional={
        "metadata": st.sampled_from(["", "x", '},{"id":"a"', "]", "ö\u2028"]),
        "flags": NESTED,
        "odd": NESTED | st.none(),
        "parent": IDS,
    },
)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove", "save", "reopen"]), IDS, st.text(max_size=3)), max_size=12)
SPACES = st.sampled_from([(",", ":"), (", ", ": "), (",\n ", ":")])


def opened(home: Path) -> Table[LayerRecord]:
    return Table(LayerRecord, LockFile(str(home / "l.lock"), rank=lock.LAYERS), [str(home / "layers.json")])


def plain(home: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((home / "layers.json").read_text() or "[]")
    return found


@given(st.lists(RECORDS, max_size=6), SPACES, STEPS)
@example([{"id": "a"}, {"id": "b"}], (",", ":"), [("remove", "b", ""), ("remove", "a", ""), ("put", "a", "")])
@example([{"id": "a"}, {"id": "b"}], (",", ":"), [("put", "a", "1"), ("save", "a", ""), ("put", "a", "2")])
def test_as_a_list_would(records: list[dict[str, Any]], spaces: tuple[str, str], steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "layers.json").write_text(json.dumps(records, separators=spaces, ensure_ascii=False))
        expected = [dict(record) for record in records]
        layers = opened(home)
        with layers.writing() as edit:
            for step, id, text in steps:
                if step == "put":
                    put(expected, id, text)
                    old = edit.get(id)
                    edit.put((old or LayerRecord(id=id)).replace(metadata=text))
                elif step == "remove":
                    expected = [record for record in expected if record["id"] != id]
                    edit.remove(id)
                elif step == "save":
                    edit.save()
                    assert comparable(plain(home)) == comparable(expected)
                else:
                    edit.save()
                    layers = opened(home)
        assert comparable(plain(home)) == comparable(expected)
        with opened(home).reading() as view:
            found = [record.id for record in view]
            assert sorted(found) == sorted({record["id"] for record in expected})
            if len(found) == len(expected) and not any(step == "remove" for step, _id, _text in steps):
                assert found == [record["id"] for record in expected]


def put(expected: list[dict[str, Any]], id: str, text: str) -> None:
    """Change the last record of an ID, which is the one that counts, or add one."""
    for record in reversed(expected):
        if record["id"] == id:
            record["metadata"] = text
            return
    expected.append({"id": id, "metadata": text})


def comparable(records: list[dict[str, Any]]) -> list[Any]:
    """Records in no order, without what an empty value may or may not be there for."""
    told = [{key: value for key, value in record.items() if value and key != "created"} for record in records]
    return sorted(json.dumps(record, sort_keys=True) for record in told)


@given(st.lists(RECORDS, max_size=5, unique_by=lambda record: record["id"]), st.data())
def test_spliced_as_put_together(records: list[dict[str, Any]], data: st.DataObject) -> None:
    raws = [json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() for record in records]
    text = b"[" + b",".join(raws) + b"]"
    changes: list[splice.Change] = []
    wanted: list[bytes | None] = []
    for record, raw in zip(records, raws, strict=True):
        how = data.draw(st.sampled_from(["keep", "drop", "change"]))
        new = {"keep": raw, "drop": None, "change": raw[:-1] + b',"new":1}'}[how]
        wanted.append(new)
        if how != "keep":
            changes.append(splice.Change(old=raw if data.draw(st.booleans()) else record, new=new))
    added = [b'{"id":"+%d"}' % number for number in range(data.draw(st.integers(0, 2)))]
    found = splice.spliced(text, [*changes, *(splice.Change(old=None, new=raw) for raw in added)])
    if found is not None:  # it may give up, where one record stands within another
        assert found == b"[" + b",".join([raw for raw in wanted if raw is not None] + added) + b"]"
