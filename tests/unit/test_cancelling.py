"""Every long operation counts what it does, and leaves nothing half-made when its callback ends it half-way."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.mark import ParameterSet

from layerhold import progress
from layerhold.copying import Place, copy
from layerhold.errors import Cancelled
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.progress import Progress
from layerhold.store import Store
from layerhold.tree import copy as tree_copy
from tests import stores

IMAGE, LAYER, EMPTY = "a" * 64, "1" * 64, "2" * 64
DIRECTORIES, FILES, SIZE = 3, 12, 1000
NAMES = DIRECTORIES + FILES + 2  # a link and a hard link
BYTES = FILES * SIZE
RANGE = IdRange(container=0, host=100000, size=65536)
MAPPED = IdMappings(uids=(RANGE,), gids=(RANGE,))

Callback = Callable[[Progress], object]
Work = Callable[[Store, Callback], None]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call back each time, not ten times a second."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0.0)


@pytest.fixture(params=["vfs", pytest.param("overlay", marks=pytest.mark.root)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with an image; overlay cannot show its files with other owners, and copies them."""
    with stores.scratch("cancel") as folder:
        yield with_image(opened(folder, request.param))


def opened(folder: Path, driver: str) -> Store:
    store = Store.open(graphroot=folder / "root", runroot=folder / "run", driver=driver)
    if driver == "overlay":
        store.driver.maps_at_mount = lambda: False  # type: ignore[method-assign]
    return store


def again(store: Store) -> Store:
    return Store.open(graphroot=store.config.graphroot, runroot=store.config.runroot, driver=store.driver.name)


def with_image(store: Store) -> Store:
    layer = store.layers.create(diff=io.BytesIO(a_tar()), id=LAYER, writable=False)
    store.layers.create(id=EMPTY)
    store.images.create(layer=layer, id=IMAGE, names=["x"], data={"manifest": b"{}"})
    return store


def a_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(DIRECTORIES):
            add(tar, f"d{number}", tarfile.DIRTYPE)
            for name in range(FILES // DIRECTORIES):
                add(tar, f"d{number}/f{name}", tarfile.REGTYPE, bytes([number, name]) * (SIZE // 2))
        add(tar, "link", tarfile.SYMTYPE, target="d0")
        add(tar, "hard", tarfile.LNKTYPE, target="d0/f0")
    return file.getvalue()


class Slow(io.BytesIO):
    """A stream of which little comes at a time."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(min(size or 2048, 2048))


def add(tar: tarfile.TarFile, name: str, kind: bytes, content: bytes = b"", target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    info.uid, info.gid, info.mode = os.getuid(), os.getgid(), 0o755
    tar.addfile(info, io.BytesIO(content))


def files(store: Store) -> dict[str, bytes]:
    """All names below the roots, and what the records say; without locks, and what is always there."""
    found = {}
    for top in (store.config.graphroot, store.config.runroot):
        for directory, directories, names in os.walk(top):
            for name in (*directories, *names):
                path = os.path.join(directory, name)
                if not name.endswith(".lock") and name not in ("tempdirs", "tmp"):
                    found[path] = Path(path).read_bytes() if name.endswith(".json") else b""
    return found


def ending(phase: str, entries: int) -> Callback:
    """Raise when so many entries are reached."""

    def call(now: Progress) -> None:
        if now.phase == phase and now.entries >= entries:
            raise Cancelled

    return call


def make_mapped_layer(store: Store, progress: Callback) -> None:
    store.layers.create(LAYER, mappings=MAPPED, progress=progress)


def make_mapped_container(store: Store, progress: Callback) -> None:
    store.containers.create(image=IMAGE, names=["c"], mappings=MAPPED, progress=progress)


def plan_mapped_container(store: Store, progress: Callback) -> None:
    store.containers.plan(image=IMAGE, mappings=MAPPED, progress=progress)


def add_to_layer(store: Store, progress: Callback) -> None:
    store.layers[LAYER].apply(Slow(a_tar()), progress=progress)


def import_layer(store: Store, progress: Callback) -> None:
    store.layers.create(diff=Slow(a_tar()), progress=progress)


def duplicate(store: Store, progress: Callback) -> None:
    store.layers.copy(LAYER, progress=progress)


def check(store: Store, progress: Callback) -> None:
    store.check(progress=progress)


def dedup(store: Store, progress: Callback) -> None:
    store.dedup(method="sha256", progress=progress)


def changes(store: Store, progress: Callback) -> None:
    store.layers[LAYER].changes(progress=progress)


def diff_size(store: Store, progress: Callback) -> None:
    store.layers[LAYER].diff_size(progress=progress)


def compare(store: Store, progress: Callback) -> None:
    store.layers[LAYER].changes(EMPTY, progress=progress)


def write_out(store: Store, progress: Callback) -> None:
    with store.layers[LAYER].diff(EMPTY, progress=progress) as tar:
        tar.read()


class Told(NamedTuple):
    """What is said at the end of a phase."""

    phase: str
    entries: int
    bytes: int = 0
    total: int | None = None


def as_root(*values: object) -> ParameterSet:
    return pytest.param(*values, marks=pytest.mark.root)


OPERATIONS = [
    (add_to_layer, Told("copying", NAMES, BYTES)),
    (add_to_layer, Told("unpacking", NAMES, len(a_tar()))),
    (import_layer, Told("unpacking", NAMES, len(a_tar()))),
    (duplicate, Told("copying", NAMES, BYTES)),
    as_root(make_mapped_layer, Told("copying", NAMES, BYTES)),
    as_root(make_mapped_container, Told("copying", NAMES, BYTES)),
    as_root(plan_mapped_container, Told("looking at owners", NAMES - 1)),  # each inode once
    # Those of the tar, and those of the layer.
    (check, Told("checking", 2 * NAMES, len(a_tar()))),
    (dedup, Told("looking for files", FILES)),
    (dedup, Told("sharing", FILES, BYTES, FILES)),
    (changes, Told("comparing", NAMES)),
    (diff_size, Told("comparing", NAMES)),
    (compare, Told("comparing", NAMES)),
    (write_out, Told("comparing", NAMES)),
]


@pytest.mark.parametrize(("work", "end"), OPERATIONS)
def test_it_counts(store: Store, work: Work, end: Told) -> None:
    said: list[Progress] = []
    work(store, said.append)
    of_phase = [one for one in said if one.phase == end.phase]
    last = of_phase[-1]
    assert Told(last.phase, last.entries, last.bytes, last.total_entries) == end
    assert any(0 < one.entries < end.entries for one in of_phase)


@pytest.mark.parametrize(("work", "end"), OPERATIONS)
def test_nothing_half_made_stays(store: Store, work: Work, end: Told) -> None:
    before = files(store)
    with pytest.raises(Cancelled):
        work(store, ending(end.phase, end.entries // 2))
    assert files(store) == before
    assert again(store).check().ok
    assert files(store) == before
    work(store, lambda _progress: None)  # and nothing is in the way of doing it again


def test_a_vfs_layer_is_a_copy_of_its_parent(tmp_path: Path) -> None:
    store = with_image(opened(tmp_path, "vfs"))
    said: list[Progress] = []
    store.layers.create(LAYER, progress=said.append).delete()
    last = Progress(phase="copying", bytes=BYTES, entries=NAMES, total_bytes=None, total_entries=None)
    assert said[-1] == last
    store.containers.create(image=IMAGE, progress=said.append).delete()
    assert said[-1] == last
    before = files(store)
    with pytest.raises(Cancelled):
        store.layers.create(LAYER, names=["new"], progress=ending("copying", 7))
    with pytest.raises(Cancelled):
        store.containers.create(image=IMAGE, names=["new"], progress=ending("copying", 7))
    assert files(again(store)) == before


def test_long_files_are_told_of_while_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_copy, "_clone", lambda *_: False)
    monkeypatch.setattr(tree_copy, "_PIECE", 4096)
    (tmp_path / "src").mkdir()
    (tmp_path / "dst").mkdir()
    (tmp_path / "src/file").write_bytes(os.urandom(3 * 4096))
    said: list[Progress] = []
    tree_copy.copy_tree(str(tmp_path / "src"), str(tmp_path / "dst"), progress=said.append)
    assert [(one.bytes, one.entries) for one in said] == [(4096, 0), (8192, 0), (12288, 0), (12288, 1), (12288, 1)]


def test_an_error_of_the_callback_is_not_taken_for_one_of_the_work(store: Store) -> None:
    """Not for one of the file that is being copied, nor for damage, nor for a file that cannot be shared."""

    def broken(now: Progress) -> None:
        if now.entries > 3:
            raise error

    for error in (BrokenPipeError("nobody looks"), OSError(errno.EOPNOTSUPP, "no"), Cancelled()):
        for work in (add_to_layer, check, dedup):
            with pytest.raises(type(error)) as caught:
                work(store, broken)
            assert caught.value is error
            assert not getattr(error, "filename", None)


@pytest.mark.root
def test_a_whole_copy_for_mapped_containers_stays_with_its_image(tmp_path: Path) -> None:
    store = with_image(opened(tmp_path, "vfs"))
    copies = [0]  # how far each has come

    def second(now: Progress) -> None:
        if now.entries < copies[-1]:
            copies.append(0)
        copies[-1] = now.entries
        if len(copies) == 2 and now.entries > 7:
            raise Cancelled

    with pytest.raises(Cancelled):
        make_mapped_container(store, second)
    (copy,) = store.images[IMAGE].record.mapped_layers
    assert not len(store.containers)
    assert {layer.id for layer in store.layers} == {LAYER, EMPTY, copy}
    assert again(store).check().ok


# -- removal


def delete_layer(store: Store, progress: Callback) -> None:
    store.layers[store.layers.create(LAYER, diff=io.BytesIO(a_tar())).id].delete(progress=progress)


def delete_image(store: Store, progress: Callback) -> None:
    store.images[IMAGE].delete(progress=progress)


def delete_container(store: Store, progress: Callback) -> None:
    container = store.containers.create(image=IMAGE)
    container.layer.apply(io.BytesIO(a_tar()))
    container.delete(progress=progress)


def wipe(store: Store, progress: Callback) -> None:
    store.wipe(progress=progress)


def collect_garbage(store: Store, progress: Callback) -> None:
    stray = Path(store.driver.path("5" * 64))
    stray.mkdir()
    for number in range(NAMES):
        (stray / str(number)).touch()
    store.collect_garbage(progress=progress)


def repair(store: Store, progress: Callback) -> None:
    Path(store.config.graphroot, f"{store.driver.name}-images", IMAGE, "=bWFuaWZlc3Q=").unlink(missing_ok=True)
    Path(store.config.graphroot, f"{store.driver.name}-images", IMAGE, "manifest").unlink(missing_ok=True)
    store.repair(store.check(), progress=progress)


REMOVALS = [delete_layer, delete_image, delete_container, wipe, collect_garbage, repair]


@pytest.mark.parametrize("work", REMOVALS)
def test_removals_count(store: Store, work: Work) -> None:
    said: list[Progress] = []
    work(store, said.append)
    assert {one.phase for one in said} == {"removing"}
    assert [one.entries for one in said[:-1]] == list(range(1, len(said)))
    assert said[-1].entries == said[-2].entries >= NAMES + 1


@pytest.mark.parametrize("work", REMOVALS)
def test_what_a_removal_leaves_goes_with_the_next_opening(store: Store, work: Work) -> None:
    with pytest.raises(Cancelled):
        work(store, ending("removing", 3))
    left = aside(store)
    assert left
    reopened = again(store)
    assert not aside(reopened)
    assert reopened.check().ok
    if work in (delete_image, repair):
        assert (len(reopened.images), len(reopened.layers)) == (0, 1)


def aside(store: Store) -> list[Path]:
    root = Path(store.config.graphroot)
    return [*root.glob("*/tempdirs/*"), *root.glob("*/tmp/*")]


def test_wiping_can_be_taken_up_again(store: Store) -> None:
    store.containers.create(image=IMAGE).layer.apply(io.BytesIO(a_tar()))
    with pytest.raises(Cancelled):
        store.wipe(progress=ending("removing", 3))
    assert (len(store.containers), len(store.images), len(store.layers)) == (0, 1, 2)
    again(store).wipe()
    assert not len(store.layers)


# -- files into a layer


def test_copying_into_a_layer(store: Store, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for number in range(4):
        (tmp_path / f"src/{number}").write_bytes(bytes(SIZE))
    said: list[Progress] = []
    target = Place(path="/", layer=store.layers[EMPTY])
    copy([Place(path=str(tmp_path / "src"))], target, progress=said.append)
    assert said[-1] == Progress(phase="copying", bytes=4 * SIZE, entries=4, total_bytes=None, total_entries=None)
    with pytest.raises(Cancelled):
        copy([Place(path=str(tmp_path / "src"))], target, progress=ending("copying", 2))
    assert store.layers[EMPTY].mount_count == 0
    assert again(store).check().ok
