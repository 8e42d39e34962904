"""Tables: what readers see, what a save writes, and what a crash leaves."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from layerhold import lock
from layerhold.errors import DamagedFile, ReadOnlyStore
from layerhold.lock import LockFile, ReadersLock
from layerhold.records import table as table_module
from layerhold.records.editor import Editor
from layerhold.records.model import ImageRecord, LayerRecord, MountRecord
from layerhold.records.rows import Rows, read_rows
from layerhold.records.table import Table
from layerhold.tree import files

Layers = Table[LayerRecord]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def layers(home: Path, **options: Any) -> Layers:
    return Table(
        LayerRecord,
        LockFile(str(home / "layers.lock"), rank=lock.LAYERS),
        [str(home / "layers.json"), str(home / "volatile-layers.json")],
        **options,
    )


def layer(id: str, *names: str, **fields: Any) -> LayerRecord:
    return LayerRecord(id=id, names=names, **fields)


def fill(home: Path, *records: dict[str, Any], name: str = "layers.json") -> None:
    (home / name).write_text(json.dumps(records))


def saved(home: Path, name: str = "layers.json") -> list[Any]:
    found: list[Any] = json.loads((home / name).read_text())
    return found


def ids(table: Layers) -> list[str]:
    with table.reading() as view:
        return [record.id for record in view]


def test_an_empty_store(home: Path) -> None:
    with layers(home).reading() as view:
        assert (len(view), list(view), view.get("x"), view.by_name("x"), view.find("x")) == (0, [], None, None, None)
    with layers(home).writing():
        pass
    assert os.listdir(home) == ["layers.lock"]


def test_look_ups(home: Path) -> None:
    fill(
        home,
        {"id": "abc1", "names": ["one", "abd"]},
        {"id": "abd2", "parent": "abc1"},
        {"id": "xyz", "parent": "abc1"},
        {"id": "q r"},
    )
    with layers(home).reading() as view:
        by_ref = {ref: view.find(ref) for ref in ("abc1", "one", "abd", "abc", "ab", "x", "", "q", "q r", "no")}
        found = {ref: record.id for ref, record in by_ref.items() if record}
        assert found == {"abc1": "abc1", "one": "abc1", "abd": "abc1", "abc": "abc1", "x": "xyz", "q r": "q r"}
        assert view.get("abc") is None
        assert "abc1" in view
        assert "abc" not in view
        assert 5 not in view
        assert [record.id for record in view.where("parent", "abc1")] == ["abd2", "xyz"]
        assert [record.id for record in view.where("parent", "")] == ["abc1", "q r"]


def test_records_that_have_a_text_here_or_in_a_list(home: Path) -> None:
    path = home / "images.json"
    path.write_text(
        json.dumps(
            [
                {"id": "top", "layer": "x"},
                {"id": "mapped", "layer": "y", "mapped-layers": ["z", "x"]},
                {"id": "neither", "layer": "y", "mapped-layers": ["xx"]},
                {"id": "odd", "layer": "y", "mapped-layers": "x"},
                {"id": "none", "mapped-layers": None},
            ]
        )
    )
    table = Table(ImageRecord, LockFile(str(home / "images.lock"), rank=lock.IMAGES), [str(path)])
    with table.writing() as edit:
        edit.put(ImageRecord(id="new", layer="z", mapped_layers=("x",)))
        assert [image.id for image in edit.where("layer", "x", or_among="mapped-layers")] == ["top", "mapped", "new"]
        assert [image.id for image in edit.where("layer", "x")] == ["top"]


def test_put_replace_remove_and_names(home: Path) -> None:
    table = layers(home)
    with table.writing() as edit:
        edit.put(layer("a", "one", "two"))
        edit.put(layer("b", "two"))
        assert edit.by_name("two") == layer("b", "two")
        assert edit.get("a") == layer("a", "one")
        edit.put(layer("a", "three", parent="b"))
        assert edit.by_name("one") is None
        assert [record.id for record in edit.where("parent", "b")] == ["a"]
        edit.remove("b")
        edit.remove("none")
        assert edit.by_name("two") is None
    for same in (table, layers(home)):
        with same.reading() as view:
            assert list(view) == [layer("a", "three", parent="b")]
            assert view.by_name("three") == view.get("a")


def test_only_what_changed_is_written_anew(home: Path) -> None:
    odd = '{ "id":"a",  "x":1.50, "created":"0001-01-01T00:00:00Z" }'
    (home / "layers.json").write_text(f'[{odd}, {{}}, {{"id":"b"}}]\n')
    with layers(home).writing() as edit:
        edit.put(layer("c"))
        edit.put(layer("b", metadata="<"))
    assert (home / "layers.json").read_text() == (
        f'[{odd},{{}},{{"id":"b","metadata":"\\u003c","created":"0001-01-01T00:00:00Z"}},'
        '{"id":"c","created":"0001-01-01T00:00:00Z"}]'
    )
    before = (home / "layers.json").stat()
    with layers(home).writing() as edit:
        assert edit.get("b")
    assert (home / "layers.json").stat() == before


def test_two_files(home: Path) -> None:
    fill(home, {"id": "stable"})
    table, volatile = layers(home), str(home / "volatile-layers.json")
    with table.writing() as edit:
        edit.put(layer("also"))
    assert not (home / "volatile-layers.json").exists()
    with table.writing() as edit:
        edit.put(layer("gone", origin=volatile))
    stable = (home / "layers.json").stat()
    with table.writing() as edit:
        edit.put(layer("gone", "named"))
    assert (home / "layers.json").stat() == stable
    assert [record["id"] for record in saved(home, "volatile-layers.json")] == ["gone"]
    with table.writing() as edit:
        edit.put(layer("last"))
    assert ids(table) == ids(layers(home)) == ["stable", "also", "last", "gone"]
    with table.writing() as edit:
        edit.remove("gone")
    assert saved(home, "volatile-layers.json") == []


def test_volatile_files_are_not_synced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def noted(fd: int, _directory: str) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(files, "settle_file", noted)
    with layers(home).writing() as edit:
        edit.put(layer("v", origin=str(home / "volatile-layers.json")))
        edit.put(layer("s"))
    assert len(synced) == 1
    assert synced[0].startswith(".tmp-layers.json")


def test_the_mark_comes_first_and_differs_each_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[bytes] = []
    real = files.write_atomic

    def write(path: str, data: bytes, **options: Any) -> object:
        marks.append((home / "layers.lock").read_bytes())
        return real(path, data, **options)

    monkeypatch.setattr(table_module, "write_atomic", write)
    table = layers(home)
    for id in ("a", "b"):
        with table.writing() as edit:
            edit.put(layer(id))
    assert [len(mark) for mark in marks] == [64, 64]
    assert len(set(marks)) == 2


def test_a_table_reads_again_only_when_something_changed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Sequence[str]] = []

    def load(kind: type[LayerRecord], paths: Sequence[str]) -> Rows:
        loads.append(paths)
        return read_rows(kind, paths)

    monkeypatch.setattr(table_module, "read_rows", load)
    mine, other = layers(home), layers(home)
    with other.writing() as edit:
        edit.put(layer("a"))
    assert ids(mine) == ids(mine) == ["a"]
    assert len(loads) == 2
    with mine.writing() as edit:
        edit.put(layer("b"))
    assert ids(mine) == ["a", "b"]
    assert len(loads) == 2
    assert ids(other) == ["a", "b"]  # by the mark
    os.utime(home / "layers.json", ns=(1, 1))
    assert ids(mine) == ["a", "b"]  # by the time of the file
    assert len(loads) == 4
    for mark in (b"0123456789abcdef" * 4, bytes(range(64))):  # a writer of before 1.42; any other
        (home / "layers.lock").write_bytes(mark)
        assert ids(mine) == ids(mine) == ["a", "b"]
    assert len(loads) == 6
    (home / "layers.lock").write_bytes(b"short")
    assert ids(mine) == ids(mine) == ["a", "b"]
    assert len(loads) == 8


def test_a_failing_block_saves_nothing_and_is_forgotten(home: Path) -> None:
    table = layers(home)
    with table.writing() as edit:
        edit.put(layer("a"))
    before = (home / "layers.json").read_bytes()
    with pytest.raises(KeyError), table.writing() as edit:  # noqa: PT012 - what came before the error matters
        edit.put(layer("b"))
        edit.remove("a")
        raise KeyError
    assert (home / "layers.json").read_bytes() == before
    assert ids(table) == ["a"]


def test_a_full_disk_keeps_the_old_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = layers(home)
    with table.writing() as edit:
        edit.put(layer("a"))
    with monkeypatch.context() as patch:
        patch.setattr(files, "settle_file", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"), table.writing() as edit:
            edit.put(layer("b"))
    assert ids(table) == ids(layers(home)) == ["a"]
    assert sorted(os.listdir(home)) == ["layers.json", "layers.lock"]


def test_pending(home: Path) -> None:
    table = layers(home)
    with table.writing() as edit, edit.pending(layer("a", "one", flags={"x": 1})):
        assert saved(home)[0]["flags"] == {"incomplete": True, "x": 1}
        assert "a" not in edit
        edit.put(layer("a", "one", diff_size=5, flags={"x": 1, "incomplete": True}))
    assert [(one["diff-size"], one["flags"]) for one in saved(home)] == [(5, {"x": 1})]
    with table.reading() as view:
        assert view.by_name("one") == layer("a", "one", diff_size=5, flags={"x": 1})


def test_pending_that_fails_leaves_nothing(home: Path) -> None:
    repaired: list[list[str]] = []
    table = layers(home, repair=lambda edit: repaired.append([record.id for record in edit.incomplete()]))
    with pytest.raises(KeyError), table.writing() as edit:  # noqa: PT012 - what came before the error matters
        edit.put(layer("b"))
        edit.save()
        with edit.pending(layer("a")):
            raise KeyError
    assert repaired == [["a"]]
    assert [one["id"] for one in saved(home)] == ["b"]
    assert ids(table) == ["b"]


def remove_incomplete(edit: Editor[LayerRecord]) -> None:
    for record in edit.incomplete():
        edit.remove(record.id)


def test_incomplete_records_are_hidden_and_repaired(home: Path) -> None:
    fill(home, {"id": "ab"}, {"id": "ac", "names": ["half"], "flags": {"incomplete": True}})
    with layers(home).reading() as view:  # nobody to repair it
        assert (len(view), [one.id for one in view], "ac" in view, view.get("ac")) == (1, ["ab"], False, None)
        assert view.by_name("half") is None
        found = view.find("a")
        assert found is not None
        assert found.id == "ab"
        assert [one.id for one in view.incomplete()] == ["ac"]
    assert ids(layers(home, repair=remove_incomplete)) == ["ab"]
    assert [one["id"] for one in saved(home)] == ["ab"]


def test_a_reader_is_not_stopped_by_a_repair_that_fails(home: Path) -> None:
    def fail(_edit: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    fill(home, {"id": "a"}, {"id": "b", "flags": {"incomplete": True}})
    table = layers(home, repair=fail)
    assert ids(table) == ["a"]
    with pytest.raises(OSError, match="full"), table.writing():
        pass
    assert len(saved(home)) == 2


def test_of_two_records_with_a_name_the_later_has_it(home: Path) -> None:
    fill(home, {"id": "a", "names": ["n", "m"]}, {"id": "b", "names": ["n"]}, {"id": "c", "names": ["n"]})
    table = layers(home)
    with table.reading() as view:
        owner = view.by_name("n")
        assert owner is not None
        assert owner.id == "c"
    with table.writing() as edit:
        assert [record.names for record in edit] == [("m",), (), ("n",)]
    assert [one.get("names") for one in saved(home)] == [["m"], None, ["n"]]


def test_records_whose_id_another_has_are_kept_until_it_goes(home: Path) -> None:
    fill(home, {"id": "a", "metadata": "1"}, {"id": "b"}, {"id": "a", "metadata": "2"})
    fill(home, {"id": "a", "metadata": "3"}, {"id": "c"}, name="volatile-layers.json")
    table = layers(home)
    with table.writing() as edit:
        found = edit.get("a")
        assert found is not None
        assert found.metadata == "2"
        assert len(edit) == 3
        edit.put(layer("d"))
    assert [one.get("metadata") for one in saved(home) if one["id"] == "a"] == ["1", "2"]
    with layers(home).writing() as edit:
        edit.remove("a")
    assert [one["id"] for one in saved(home)] == ["b", "d"]
    assert [one["id"] for one in saved(home, "volatile-layers.json")] == ["c"]


def test_keys_in_capitals(home: Path) -> None:
    fill(home, {"ID": "a", "Names": ["n"], "FLAGS": {"incomplete": True}}, {"Id": "b", "PARENT": "a"}, {"id": None})
    with layers(home).reading() as view:
        assert [record.id for record in view] == ["b", ""]
        assert [record.id for record in view.where("parent", "a")] == ["b"]


@pytest.mark.parametrize("use", [Table.reading, Table.writing])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('[{"id":"a"},', "line 1, column 13 (byte 12)"),
        ('[{"id":5}]', 'record 5: "id"'),
    ],
)
def test_damage_is_left_as_it_is(
    home: Path, content: str, text: str, use: Callable[[Layers], AbstractContextManager[Any]]
) -> None:
    (home / "layers.json").write_text(content)
    with pytest.raises(DamagedFile, match=f"layers.json.*{re.escape(text)}"), use(layers(home)):
        pass
    assert (home / "layers.json").read_text() == content


def test_a_damaged_record_is_named_and_its_bytes_stay(home: Path) -> None:
    fill(home, {"id": "a", "parent": 5}, {"id": "b"})
    table = layers(home)
    with table.reading() as view:
        assert view.get("b") == layer("b")
        with pytest.raises(DamagedFile, match=r"layers\.json.*'a'.*parent"):
            view.get("a")
    with table.writing() as edit:
        edit.put(layer("c"))
    assert saved(home)[0] == {"id": "a", "parent": 5}


def test_what_a_killed_writer_left_is_swept(home: Path) -> None:
    for name in (".tmp-layers.json0", ".tmp-layers.json123456", ".tmp-volatile-layers.json9", ".tmp-else", "x.tar"):
        (home / name).touch()
    assert ids(layers(home)) == []
    assert len(os.listdir(home)) == 6
    with layers(home).writing():
        pass
    assert sorted(os.listdir(home)) == [".tmp-else", "layers.lock", "x.tar"]


def test_threads_and_processes_lose_no_record(home: Path) -> None:
    table = layers(home)

    def add(who: str, to: Layers) -> None:
        for number in range(15):
            with to.writing() as edit:
                edit.put(layer(f"{who}{number}"))
            with to.reading() as view:
                assert f"{who}{number}" in view

    children = []
    for who in "pq":
        child = os.fork()
        if child == 0:
            try:
                add(who, layers(home))
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    threads = [threading.Thread(target=add, args=(who, table)) for who in "st"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert sorted(ids(table)) == sorted(f"{who}{number}" for who in "pqst" for number in range(15))
    assert len(saved(home)) == 60


def test_a_store_that_is_only_read(home: Path) -> None:
    fill(home, {"id": "a"}, {"id": "b", "flags": {"incomplete": True}})
    table = readers(home)
    assert ids(table) == ["a"]
    with pytest.raises(ReadOnlyStore), table.writing():
        pass
    assert os.listdir(home) == ["layers.json"]


def readers(home: Path) -> Table[LayerRecord]:
    no_lock = ReadersLock(str(home / "layers.lock"), rank=lock.ADDITIONAL_LAYERS)
    return Table(LayerRecord, no_lock, [str(home / "layers.json")], read_only=True)


def test_other_stores_are_looked_up_behind_the_own(home: Path, tmp_path: Path) -> None:
    fill(home, {"id": "abc", "names": ["mine"]}, {"id": "both", "names": ["shared"], "parent": "x"})
    other = tmp_path / "other"
    other.mkdir()
    fill(other, {"id": "both"}, {"id": "abd", "names": ["theirs", "shared"], "parent": "x"})
    with layers(home).reading() as own, readers(other).reading() as theirs:
        view = own.joined((theirs,))
        found = {ref: view.find(ref) for ref in ("abc", "abd", "mine", "theirs", "shared", "both", "a", "ab", "q")}
        assert {ref: record and (record.id, record.read_only) for ref, record in found.items()} == {
            "abc": ("abc", False), "abd": ("abd", True), "mine": ("abc", False), "theirs": ("abd", True),
            "shared": ("both", False), "both": ("both", False), "a": ("abc", False), "ab": ("abc", False), "q": None,
        }  # fmt: skip
        assert found["abd"] is not None
        assert found["abd"].origin == str(other / "layers.json")
        assert [record.id for record in view] == ["abc", "both", "both", "abd"]
        assert [record.id for record in view.where("parent", "x")] == ["both", "abd"]
        assert (len(view), "abd" in view, "abd" in view.own, view.own.get("abd")) == (4, True, False, None)
    assert sorted(os.listdir(other)) == ["layers.json"]


def test_mounts_have_no_names(home: Path) -> None:
    table = Table(MountRecord, LockFile(str(home / "m.lock"), rank=lock.MOUNTS), [str(home / "mountpoints.json")])
    with table.writing() as edit:
        edit.put(MountRecord(id="a", path="/x", count=1))
        edit.put(MountRecord(id="a", path="/x", count=2))
    assert (home / "mountpoints.json").read_bytes() == b'[{"id":"a","path":"/x","count":2}]'
    with table.reading() as view:
        assert view.get("a") == MountRecord(id="a", path="/x", count=2)


CALLS = ("open", "write", "pwrite", "fdatasync", "fchmod", "fstat", "close", "rename", "fsync", "unlink", "listdir")


def kill_at(number: int) -> None:
    """Let the `number`th of the calls that change something be this process's last."""
    left = [number]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))


def test_a_kill_at_any_call_leaves_the_old_or_the_new(home: Path) -> None:
    seen = set()
    watcher = layers(home, repair=remove_incomplete)
    with watcher.writing() as edit:
        edit.put(layer("old"))
    for number in range(200):
        child = os.fork()
        if child == 0:
            try:
                kill_at(number)
                with layers(home).writing() as edit:
                    edit.remove("old")
                    with edit.pending(layer("new")):
                        pass
            finally:
                os._exit(0)
        ended = os.waitpid(child, 0)[1]
        found = ids(watcher)
        assert found == ids(layers(home, repair=remove_incomplete))
        seen.add((*found,))
        with watcher.writing() as edit:
            edit.remove("new")
            edit.put(layer("old"))
        assert sorted(os.listdir(home)) == ["layers.json", "layers.lock"]
        if ended == 0:
            break
    assert ended == 0
    assert number > 20
    assert seen == {("old",), (), ("new",)}
