"""Look-ups, copies of layers, locks of digests, and digests that a caller gives: what the command has no words for."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerhold
from layerhold.errors import DigestUnknown, InvalidDigest, LayerHasChildren, LayerUnknown
from layerhold.lock import LockFile
from tests import stores

DRIVERS = ["vfs", pytest.param("overlay", marks=pytest.mark.root)]


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest) -> Iterator[layerhold.Store]:
    with stores.scratch("lookups") as folder:
        yield layerhold.open(graphroot=folder / "root", runroot=folder / "run", driver=request.param)


def a_tar(text: str, name: str = "file") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size, info.uid, info.gid = len(text), os.getuid(), os.getgid()
        archive.addfile(info, io.BytesIO(text.encode()))
    return file.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read(layer: layerhold.Layer) -> bytes:
    with layer.diff(compression=0) as tar:
        return tar.read()


def test_layers_by_digest(store: layerhold.Store) -> None:
    import gzip

    plain = a_tar("one")
    packed = gzip.compress(plain)
    one = store.layers.create(diff=io.BytesIO(plain))
    two = store.layers.create(diff=io.BytesIO(packed))
    assert store.layers.by_uncompressed_digest(digest(plain)) == [one, two]
    assert store.layers.by_compressed_digest(digest(packed)) == [two]
    assert store.layers.by_digest(digest(plain)) == [one, two]
    assert store.layers.by_toc_digest(digest(plain)) == []
    assert store.layers.by_compressed_digest(digest(b"?")) == []
    for look in (store.layers.by_digest, store.layers.by_compressed_digest, store.layers.by_toc_digest):
        with pytest.raises(InvalidDigest):
            look("sha256:12")


def test_sizes(store: layerhold.Store) -> None:
    full = store.layers.create(diff=io.BytesIO(a_tar("four")))
    assert (full.size, full.diff_size()) == (10240, 4)
    assert store.layers.create().size is None


def test_who_has_a_layer(store: layerhold.Store) -> None:
    base = store.layers.create(names=["base"])
    image = store.images.create(layer=base, names=["image"])
    other = store.images.create(layer=base)
    container = store.containers.create(image=image)
    assert store.images.by_layer("base") == [image, other]
    assert store.images.by_layer(container.layer) == []
    assert store.containers.by_layer(container.layer) == container
    assert store.containers.by_layer(base) is None
    for look in (store.images.by_layer, store.containers.by_layer):
        with pytest.raises(LayerUnknown):
            look("no-such-layer")


def test_a_copy_is_a_layer_of_its_own(store: layerhold.Store) -> None:
    base = store.layers.create(diff=io.BytesIO(a_tar("below", "lower")))
    top = store.layers.create(base, diff=io.BytesIO(a_tar("above", "upper")), metadata="words")
    copy = store.layers.copy(top, names=["copy"])
    assert (copy.parent_id, copy.names, copy.metadata, copy.size) == (base.id, ("copy",), "words", 10240)
    assert read(copy) == read(top)
    with copy.mount() as root:
        (root / "upper").write_text("changed")
        assert (root / "lower").read_text() == "below"
    with top.mount() as root:
        assert (root / "upper").read_text() == "above"
    top.delete()
    with copy.mount() as root:
        assert sorted(os.listdir(root)) == ["lower", "upper"]
        assert (root / "upper").read_text() == "changed"
    with pytest.raises(LayerHasChildren):
        base.delete()


def test_a_copy_of_nothing(store: layerhold.Store) -> None:
    with pytest.raises(LayerUnknown):
        store.layers.copy("no-such-layer")
    assert list(store.driver.ids()) == []


def test_names_that_an_image_had(store: layerhold.Store) -> None:
    image = store.images.create(names=["first"])
    image.set_names(["second"])
    image.add_names(["third"])
    assert image.names == ("third", "second")
    assert image.refresh().names_history == ("second", "third")


def test_a_digest_can_be_given(store: layerhold.Store) -> None:
    image = store.images.create()
    other = digest(b"payload without signatures")
    image.data.set("manifest", b"signed", digest=lambda _bytes: other)
    image.data.set("manifest-2", b"plain")
    assert image.data.digest("manifest") == other
    assert image.refresh().digests == (other, digest(b"plain"))
    assert [found.id for found in store.images.by_digest(digest(b"plain"))] == [image.id]
    with pytest.raises(InvalidDigest):
        image.data.set("manifest", b"x", digest="nonsense")
    assert image.data["manifest"] == b"signed"
    with image.data.open("manifest") as file:
        assert file.read() == b"signed"
    with pytest.raises(DigestUnknown):
        image.data.digest("none")


def test_the_lock_of_a_digest(store: layerhold.Store) -> None:
    name = digest(b"blob")
    with store.digest_lock(name).exclusive(), store.digest_lock(digest(b"other")).exclusive():
        assert store.layers.get("x") is None
        place = Path(store.config.runroot) / f"{store.driver.name}-locks" / name
        with LockFile(str(place), rank=0, store="of somebody else").try_exclusive() as got:
            assert got is None
    for wrong in ("", "../x", "sha256:/etc/passwd"):
        with pytest.raises(InvalidDigest):
            store.digest_lock(wrong)
