"""What bad input gets from a store: a clear error, and a store that is as it was.

For each: no new record, nothing outside the layer, nothing left after the next open, what was there still usable.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import layerhold
from layerhold import errors
from tests import stores

BLOCK = 512


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "") -> bytes:
    """One entry, owned by whoever runs the test."""
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(content), link
    member.uid, member.gid = os.getuid(), os.getgid()
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % BLOCK)


def archive(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(2 * BLOCK)


GOOD = archive(entry("etc/", tarfile.DIRTYPE), entry("etc/conf", content=b"good\n" * 300))
PACKED = gzip.compress(GOOD)
DEEP_PAX = b"%d comment=" % (1 << 21) + b"x" * (1 << 21)

BAD: dict[str, tuple[bytes, type[Exception]]] = {
    "cut in a header": (GOOD[:700], errors.BadArchive),
    "cut in a file": (GOOD[: 3 * BLOCK], errors.BadArchive),
    "cut in the padding": (archive(entry("a", content=b"x" * 700))[: BLOCK + 900], errors.BadArchive),
    "cut gzip": (PACKED[:-9], errors.BadArchive),
    "gzip with a wrong checksum": (
        PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
        errors.BadArchive,
    ),
    "cut zstd": (b"\x28\xb5\x2f\xfd\x24\x00", errors.BadArchive),
    "a header that adds up wrong": (GOOD[:10] + b"X" + GOOD[11:], errors.BadArchive),
    "no tar at all": (b"hello\n" * 200, errors.BadArchive),
    "two dots out of the root": (archive(entry("../out", content=b"x")), errors.RefusedEntry),
    "two dots further on": (archive(entry("a/../../out", content=b"x")), errors.RefusedEntry),
    "a hard link to nothing": (archive(entry("a", tarfile.LNKTYPE, link="missing")), errors.RefusedEntry),
    "a hard link out of the root": (archive(entry("a", tarfile.LNKTYPE, link="../../etc/passwd")), errors.RefusedEntry),
    "a name under a file": (archive(entry("a", content=b"x"), entry("a/b", content=b"y")), errors.RefusedEntry),
    "the same name twice": (archive(entry("a", content=b"x"), entry("./a", content=b"y")), errors.RefusedEntry),
    "an unknown kind": (archive(entry("a", b"Q")), errors.RefusedEntry),
    "headers of two megabytes": (archive(entry("x", b"x", content=DEEP_PAX), entry("a")), errors.BadArchive),
}


@contextmanager
def opened(folder: Path, driver: str) -> Iterator[layerhold.Store]:
    with layerhold.Store.open(graphroot=folder / "root", runroot=folder / "run", driver=driver) as store:
        yield store


def everything(folder: Path) -> set[str]:
    """The paths below `folder`, but for locks and marks of what overlay can do, which come with the first use."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix != ".lock" and path.parent.name != "overlay"
    }


DRIVERS = ["vfs", pytest.param("overlay", marks=pytest.mark.root)]


@pytest.fixture(params=DRIVERS)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Path, str]]:
    """A folder with a store that has one good layer, and its driver."""
    with stores.scratch() as folder:
        with opened(folder, request.param) as store:
            store.layers.create(diff=io.BytesIO(GOOD), names=["good"])
        yield folder, request.param


@contextmanager
def unchanged(folder: Path, driver: str) -> Iterator[layerhold.Store]:
    """A store of which nothing may have changed at the end of the block, and whose good layer still comes out whole."""
    with opened(folder, driver) as store:
        before = everything(folder)
        yield store
    with opened(folder, driver) as store:
        assert [layer.names for layer in store.layers] == [("good",)]
        assert (len(store.images), len(store.containers)) == (0, 0)
        with store.layers["good"].diff(compression=0) as tar:
            assert tar.read() == GOOD
        assert everything(folder) == before


@pytest.mark.parametrize("name", BAD)
def test_a_bad_stream_changes_nothing(place: tuple[Path, str], name: str) -> None:
    data, kind = BAD[name]
    with unchanged(*place) as store, pytest.raises(kind):
        store.layers.create("good", diff=io.BytesIO(data), names=["bad"])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_stream_over_a_layer_leaves_it_as_it_was(place: tuple[Path, str], name: str) -> None:
    data, kind = BAD[name]
    with unchanged(*place) as store, pytest.raises(kind):
        store.layers["good"].apply(io.BytesIO(data))


def test_missing_end_blocks_are_no_harm(place: tuple[Path, str]) -> None:
    with opened(*place) as store:
        layer = store.layers.create(diff=io.BytesIO(GOOD[: -2 * BLOCK]))
        with layer.diff(compression=0) as tar:
            assert tar.read() == GOOD[: -2 * BLOCK]


def test_a_wrong_digest_changes_nothing(place: tuple[Path, str]) -> None:
    with unchanged(*place) as store, pytest.raises(errors.DigestMismatch):
        store.layers.create(diff=io.BytesIO(GOOD), expect="sha256:" + "0" * 64)


def test_the_right_digest_is_accepted(place: tuple[Path, str]) -> None:
    with opened(*place) as store:
        digest = "sha256:" + hashlib.sha256(GOOD).hexdigest()
        assert store.layers.create(diff=io.BytesIO(GOOD), expect=digest).record.diff_digest == digest


@pytest.mark.parametrize("id", ["a/b", ".", "..", "../x", "a\0b", "", ".hidden", "x" * 300])
def test_an_id_that_could_name_something_else_is_refused(place: tuple[Path, str], id: str) -> None:
    with unchanged(*place) as store:
        makers: list[Callable[[], object]] = [
            lambda: store.layers.create(id=id),
            lambda: store.images.create(id=id),
            lambda: store.containers.create(id=id),
        ]
        for make in makers:
            with pytest.raises(errors.InvalidID):
                make()


@pytest.mark.root
@pytest.mark.parametrize("id", ["l", "tempdirs", "staging"])
def test_the_drivers_own_words_are_no_ids(store_dir: Path, id: str) -> None:
    with opened(store_dir, "overlay") as store, pytest.raises(errors.InvalidID):
        store.layers.create(id=id)


def test_a_parent_that_is_not_there(place: tuple[Path, str]) -> None:
    with unchanged(*place) as store, pytest.raises(errors.LayerUnknown):
        store.layers.create("missing", diff=io.BytesIO(GOOD))


def test_a_parent_that_goes_while_its_child_is_unpacked(place: tuple[Path, str]) -> None:
    class Deleting:
        def __init__(self) -> None:
            self._data = io.BytesIO(GOOD)

        def read(self, size: int = -1) -> bytes:
            if "parent" in store.layers:
                store.layers["parent"].delete()
            return self._data.read(size)

    with unchanged(*place) as store:
        store.layers.create(names=["parent"])
        with pytest.raises(errors.LayerUnknown):
            store.layers.create("parent", diff=Deleting())


def test_a_lock_file_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "root/vfs-layers/layers.lock").mkdir(parents=True)
    with pytest.raises(errors.StorageError, match=r"layers\.lock is a directory"), opened(tmp_path, "vfs"):
        pass


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    (tmp_path / "root/vfs-layers").mkdir(parents=True)
    (tmp_path / "root/vfs-layers/layers.lock").symlink_to(victim)
    with pytest.raises(errors.StorageError, match=r"layers\.lock is a symbolic link"), opened(tmp_path, "vfs"):
        pass
    assert victim.read_text() == "as it was"


def test_an_unknown_driver(tmp_path: Path) -> None:
    with pytest.raises(errors.DriverNotSupported):
        layerhold.Store.open(graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="nonsense")
    assert not (tmp_path / "root/nonsense").exists()


@pytest.mark.parametrize("kind", ["layers", "images", "containers"])
def test_a_damaged_record_file_is_named_and_kept(tmp_path: Path, kind: str) -> None:
    with opened(tmp_path, "vfs") as store:
        store.layers.create(names=["kept"])
    path = tmp_path / f"root/vfs-{kind}/{kind}.json"
    path.write_text('[{"id":"a"},\n {"id":]')
    with opened(tmp_path, "vfs") as store, pytest.raises(errors.DamagedFile, match=rf"{kind}\.json.*line 2"):
        getattr(store, kind).create()
    assert path.read_text() == '[{"id":"a"},\n {"id":]'


# -- a disk that is full


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs of a few hundred blocks or inodes."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        stores.clear(disk)


@pytest.mark.root
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
@pytest.mark.parametrize("scarce", ["bytes", "inodes"])
def test_a_disk_that_is_full(store_dir: Path, driver: str, scarce: str) -> None:
    """Fill the disk to every point of an import: it fails with the system's error, and leaves nothing."""
    payload = archive(*(entry(f"f{number}", content=b"x" * 20000) for number in range(10)))
    options = "size=512k" if scarce == "bytes" else "size=8m,nr_inodes=60"
    with small_disk(store_dir, options) as disk:
        with opened(disk, driver) as store:
            store.layers.create(diff=io.BytesIO(GOOD), names=["good"])
        failures = 0
        for left in range(0, 70, 3):
            with filled(disk, left, scarce):
                try:
                    with opened(disk, driver) as store:
                        store.layers.create("good", diff=io.BytesIO(payload), names=["big"])
                        store.images.create(layer="big", names=["big"], data={"manifest": b"{}" * 2000})
                except OSError:
                    failures += 1
                with opened(disk, driver) as store:
                    names = {name for layer in store.layers for name in layer.names}
                    assert "good" in names
                    for image in store.images:
                        image.delete(with_layers=False)
                    if "big" in store.layers:
                        store.layers["big"].delete()
            with opened(disk, driver) as store:
                assert [layer.names for layer in store.layers] == [("good",)]
                with store.layers["good"].diff(compression=0) as tar:
                    assert tar.read() == GOOD
        assert 5 < failures < 24


@pytest.mark.root
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
@pytest.mark.parametrize("scarce", ["bytes", "inodes"])
def test_deleting_makes_room_on_a_full_disk(store_dir: Path, driver: str, scarce: str) -> None:
    options = "size=512k" if scarce == "bytes" else "size=8m,nr_inodes=60"
    with small_disk(store_dir, options) as disk:
        with opened(disk, driver) as store:
            layer = store.layers.create(diff=io.BytesIO(GOOD), names=["good"])
            image = store.images.create(layer=layer, names=["image"], data={"manifest": b"{}"})
            store.containers.create(image=image, names=["box"])
            store.layers.create(diff=io.BytesIO(GOOD), names=["kept"])
        with filled(disk, 0, scarce), opened(disk, driver) as store:
            store.containers["box"].delete()
            assert store.images["image"].delete() == [layer.id]
        with opened(disk, driver) as store:
            assert [layer.names for layer in store.layers] == [("kept",)]
            assert (len(store.images), len(store.containers)) == (0, 0)


@contextmanager
def filled(disk: Path, left: int, scarce: str) -> Iterator[None]:
    """Leave `left` blocks of 4096 bytes, or inodes, free during the block."""
    filler = disk / "filler"
    filler.mkdir()
    info = os.statvfs(disk)
    if scarce == "bytes":
        (filler / "file").write_bytes(bytes(max(info.f_bavail - left - 1, 0) * info.f_frsize))
    else:
        for number in range(info.f_favail - left):
            (filler / str(number)).touch()
    try:
        yield
    finally:
        for path in filler.iterdir():
            path.unlink()
        filler.rmdir()


@pytest.mark.root
def test_a_store_that_cannot_be_written(store_dir: Path) -> None:
    with opened(store_dir, "vfs") as store:
        store.layers.create(diff=io.BytesIO(GOOD), names=["good"])
    subprocess.run(["mount", "--bind", str(store_dir), str(store_dir)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(store_dir)], check=True)
    try:
        with pytest.raises(OSError, match=r"Read-only.*storage\.lock"), opened(store_dir, "vfs"):
            pass
    finally:
        subprocess.run(["umount", str(store_dir)], check=True)
    with opened(store_dir, "vfs") as store:
        assert len(store.layers) == 1
