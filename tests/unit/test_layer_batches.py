"""Batches: what is saved when, what an error leaves, and what is cleared up after a process that was killed in one."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import layerhold
from layerhold.errors import DuplicateID, LayerHasChildren, LayerUnknown
from layerhold.layer_batches import _Note
from layerhold.layer_files import NOTE
from layerhold.tree import files

A, B, C = ("a" * 64, "b" * 64, "c" * 64)

Open = Callable[[], layerhold.Store]


@pytest.fixture(params=["vfs", pytest.param("overlay", marks=pytest.mark.root)])
def opened(request: pytest.FixtureRequest, store_dir: Path) -> Open:
    """Opens a store with layer A."""

    def opened() -> layerhold.Store:
        return layerhold.Store.open(graphroot=store_dir / "g", runroot=store_dir / "r", driver=request.param)

    opened().layers.create(id=A, diff=_tar("old"))
    return opened


def _tar(content: str) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content.encode()))
    out.seek(0)
    return out


def _content(store: layerhold.Store, id: str) -> bytes:
    with store.layers[id].diff(compression=0) as tar, tarfile.open(fileobj=tar, mode="r|") as found:
        return b"".join(file.read() for member in found if (file := found.extractfile(member)))


def _ids(store: layerhold.Store) -> set[str]:
    return {layer.id for layer in store.layers}


def _left(store: layerhold.Store) -> list[str]:
    """What there is of layers without records, and notes."""
    stray = [id for id in store.driver.ids() if id not in store.layers]
    return stray + [name for name in os.listdir(store._files.aside.base) if name.startswith(NOTE)]


def _saved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which the name of each file of records is added when it is saved."""
    saved: list[str] = []

    def noted(path: str, data: bytes, **how: bool) -> os.stat_result:
        saved.append(os.path.basename(path))
        return files.write_atomic(path, data, **how)

    monkeypatch.setattr("layerhold.records.table.write_atomic", noted)
    return saved


def test_what_came_and_went(opened: Open) -> None:
    with opened().writing() as batch:
        batch.layers.create(A, id=B, names=["b"])
        batch.layers.create(B, id=C)
        with pytest.raises(LayerHasChildren):
            batch.layers[B].delete()
        batch.layers[C].delete()
        assert C not in batch.layers
        with pytest.raises(LayerUnknown):
            batch.layers.create(C)
    assert _ids(opened()) == {A, B}
    assert not _left(opened())


def test_an_id_that_went_comes_again(opened: Open) -> None:
    with opened().writing() as batch:
        batch.layers[A].delete()
        batch.layers.create(id=A, diff=_tar("new"))
    assert _content(opened(), A) == b"new"
    with opened().writing() as batch:
        batch.layers[A].delete()
        batch.layers.create(id=A, diff=_tar("newer"))
        batch.layers[A].delete()
    assert not _ids(opened())
    assert not _left(opened())


def test_what_was_finished_before_an_error_stays(opened: Open) -> None:
    with pytest.raises(KeyError), opened().writing() as batch:  # noqa: PT012 - what came before the error matters
        batch.layers.create(id=B, diff=_tar("b"))
        batch.layers[A].delete()
        raise KeyError
    assert _ids(opened()) == {B}
    assert _content(opened(), B) == b"b"
    assert not _left(opened())


def test_names_that_were_changed_before_an_error_stay(opened: Open) -> None:
    opened().images.create(id=C, names=["before"])
    with pytest.raises(KeyError), opened().writing() as batch:  # noqa: PT012 - as above
        batch.layers[A].set_names(["after"])
        batch.images[C].set_names(["after"])
        raise KeyError
    assert opened().layers[A].names == opened().images[C].names == ("after",)


def test_what_was_made_in_a_block_can_be_used_after_it(opened: Open) -> None:
    with opened().writing() as batch:
        made = batch.layers.create(id=B)
    with opened().reading() as now:
        found = now.layers[A]
    made.set_names(["made"])
    found.set_names(["found"])
    assert [layer.names for layer in (opened().layers[B], opened().layers[A])] == [("made",), ("found",)]
    made.delete()
    batch.layers.create(id=C)
    assert _ids(opened()) == {A, C}
    assert not _left(opened())


def test_a_block_in_a_block_is_part_of_it(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = _saved(monkeypatch)
    with opened().writing() as batch:
        with batch.writing() as inner:
            inner.layers.create(id=B)
        batch.layers.create(id=C)
        batch.images.create(layer=C, id=C)
    assert saved == ["layers.json", "images.json"]


def test_an_error_that_is_caught_takes_nothing_along(opened: Open) -> None:
    with opened().writing() as batch:
        batch.layers.create(id=B)
        with pytest.raises(DuplicateID):
            batch.layers.create(id=B, diff=_tar("other"))
        batch.layers.create(id=C)
    assert _ids(opened()) == {A, B, C}


def test_a_layer_that_cannot_be_published_leaves_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise OSError(errno.EIO, "no")

    store = opened()
    with store.writing() as batch:
        batch.layers.create(id=B)
        with monkeypatch.context() as patch:
            patch.setattr(store._files, "split", fail)
            with pytest.raises(OSError, match="no"):
                batch.layers.create(id=C, diff=_tar("c"))
            patch.undo()
    assert _ids(opened()) == {A, B}
    assert not _left(opened())


def test_layers_are_saved_before_an_image_that_has_them(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = _saved(monkeypatch)
    with opened().writing() as batch:
        batch.layers.create(id=B)
        batch.images.create(layer=B, id=C)
        batch.layers.create(id=C)
    assert saved == ["layers.json", "images.json", "layers.json"]


def test_a_batch_that_cannot_be_saved_has_not_happened(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_how: object) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr("layerhold.records.table.write_atomic", fail)
        with pytest.raises(OSError, match="no"), opened().writing() as batch:  # noqa: PT012 - as above
            batch.layers.create(id=B)
            batch.layers[A].delete()
    assert _ids(opened()) == {A}
    assert _content(opened(), A) == b"old"
    assert not _left(opened())


def test_a_save_that_failed_is_made_up_for_at_the_end(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_how: object) -> None:
        raise OSError(errno.EIO, "no")

    store = opened()
    with store.writing() as batch:
        batch.layers.create(id=B)
        batch.layers[A].delete()
        with monkeypatch.context() as patch:
            patch.setattr(store._files, "take", fail)
            with pytest.raises(OSError, match="no"):
                batch.images.create(layer=B)
        batch.layers.create(id=A, diff=_tar("new"))
    assert _ids(opened()) == {A, B}
    assert _content(opened(), A) == b"new"
    assert not _left(opened())


def test_garbage_is_not_what_was_removed_and_not_saved(opened: Open) -> None:
    child = os.fork()
    if not child:
        try:
            with opened().writing() as batch:
                batch.layers[A].delete()
                batch.collect_garbage()
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store = opened()
    assert not _ids(store) or _content(store, A) == b"old"
    assert not _left(store)


def test_an_id_is_noted_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 2 * 65 + 10

    def write(fd: int, data: bytes) -> int:
        left = room - os.fstat(fd).st_size
        if not left:
            raise OSError(errno.ENOSPC, "full")
        return os.pwrite(fd, data[:left], os.fstat(fd).st_size)

    note = _Note(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("layerhold.layer_batches.os.write", write)
        note.add(A)
        note.add(B)
        with pytest.raises(OSError, match="full"):
            note.add(C)
    note.add(C)
    note.close()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().split(b"\0") == [A.encode(), B.encode(), C.encode(), b""]


def test_a_full_disk_can_be_emptied(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with opened().writing() as batch:
        monkeypatch.setattr("layerhold.layer_batches._Note", full)
        batch.layers[A].delete()
        with pytest.raises(OSError, match="full"):
            batch.layers.create(id=B)
    assert not _ids(opened())
    assert not _left(opened())


def test_what_a_killed_process_leaves(opened: Open) -> None:
    child = os.fork()
    if not child:
        try:
            with opened().writing() as batch:
                batch.layers.create(id=B, diff=_tar("b"))
                batch.layers[A].delete()
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store = opened()
    assert _ids(store) == {A}
    assert _content(store, A) == b"old"
    assert not _left(store)
    assert not os.path.exists(store._files.split(B))


def test_a_note_says_nothing_of_layers_that_have_records(opened: Open) -> None:
    store = opened()
    note = Path(store._files.aside.base, NOTE + "left")
    note.write_bytes(b"".join(id.encode() + b"\0" for id in (A, "..", "l", B)) + b"half of an I")
    assert _ids(opened()) == {A}
    assert _content(opened(), A) == b"old"
    assert not note.exists()


def test_a_store_opened_beside_a_batch_lets_the_batch_be(opened: Open) -> None:
    with ThreadPoolExecutor(1) as other, opened().writing() as batch:
        batch.layers.create(id=B, diff=_tar("b"))
        other.submit(opened).result(timeout=60)
    assert _content(opened(), B) == b"b"
