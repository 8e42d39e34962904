"""An additional store that Go's program made, on a read-only file system and without lock files in it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import layerhold
from layerhold.errors import ReadOnlyStore
from layerhold.testing import trees
from tests import stores, users

pytestmark = [pytest.mark.compat, pytest.mark.root]


class Given(NamedTuple):
    """A store that can only be read, at `root`, and the tar of its top layer."""

    root: Path
    driver: str
    tar: bytes


@pytest.fixture(params=["vfs", "overlay"])
def given(request: pytest.FixtureRequest) -> Iterator[Given]:
    with stores.scratch("given") as folder:
        place = stores.Place(folder / "made", request.param)
        top = stores.packed(motd=b"hello\n", shadowed=b"new\n")
        base = place.go("import-layer", stdin=stores.packed(shadowed=b"older\n", kept=b"kept\n")).stdout.split()[0]
        layer = place.go("import-layer", base, stdin=top).stdout.split()[0]
        place.go("create-image", "-n", "localhost/given:1", layer)
        place.go("set-image-data", "localhost/given:1", "manifest", stdin=b'{"schemaVersion":2}')
        place.go("shutdown")
        for lock in place.root.rglob("*.lock"):
            lock.unlink()
        subprocess.run(["chmod", "-R", "a+rX", str(place.root)], check=True)
        (folder / "read-only").mkdir()
        subprocess.run(["mount", "--bind", str(place.root), str(folder / "read-only")], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder / "read-only")], check=True)
        before = trees.rows(place.root)
        yield Given(folder / "read-only", request.param, top)
        assert trees.rows(place.root) == before


def test_root_uses_it(given: Given) -> None:
    with stores.scratch("own") as folder:
        config = layerhold.Config.load(graphroot=folder / "root", runroot=folder / "run", driver=given.driver)
        store = layerhold.Store.open(config.replace(additional_image_stores=(str(given.root),)))
        image = store.images["localhost/given:1"]
        layer = store.layers[image.layer_id]
        assert (image.read_only, layer.read_only, len(store.layers)) == (True, True, 2)
        assert image.data["manifest"] == b'{"schemaVersion":2}'
        assert [change.path for change in layer.changes()] == [b"/motd", b"/shadowed"]
        with layer.diff(compression=0) as tar:
            assert hashlib.sha256(tar.read()).digest() == hashlib.sha256(given.tar).digest()
        with image.mount() as root:
            assert (root / "shadowed").read_bytes() == b"new\n"
            assert (root / "kept").read_bytes() == b"kept\n"
        container = store.containers.create(image=image)
        with store.mount(container.id) as root:
            (root / "kept").write_text("changed\n")
            assert (root / "motd").read_bytes() == b"hello\n"
        assert b"/kept" in [change.path for change in container.layer.changes()]
        with pytest.raises(ReadOnlyStore):
            layer.mount()
        with pytest.raises(ReadOnlyStore):
            image.delete()
        image.add_names(["localhost/mine:1"])
        assert not store.images["localhost/mine:1"].read_only
        container.delete()
        assert store.images["localhost/mine:1"].delete() == []
        assert store.images["localhost/given:1"].read_only


def test_an_ordinary_user_uses_it(given: Given) -> None:
    if given.driver != "vfs":
        return  # the driver for any user; overlay is root's here
    with users.a_user() as user:
        conf = user.home / "storage.conf"
        conf.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{user.home}/graph"\nrunroot = "{user.home}/run"\n'
            f'[storage.options]\nadditionalimagestores = ["{given.root}"]\n'
        )
        conf.chmod(0o644)
        env = {"CONTAINERS_STORAGE_CONF": str(conf)}
        script = """
import layerhold
with layerhold.open() as store:
    image = store.images["localhost/given:1"]
    layer = store.layers[image.layer_id]
    with layer.diff(compression=0) as tar:
        size = len(tar.read())
    container = store.containers.create(image=image)
    with store.mount(container.id) as root:
        text = (root / "motd").read_text()
        root.chmod(0o755)  # what root's Go program makes is closed to all but root
        (root / "new").write_text("x")
    print(image.read_only, size, repr(text), [change.path for change in container.layer.changes()])
    container.delete()
"""
        done = user.as_user([user.python, "-c", script], env)
        assert done.stdout == f"True {len(given.tar)} 'hello\\n' [b'/new']\n"
        listed = user.as_user([user.python, "-m", "layerhold", "images"], env)
        assert "localhost/given:1" in listed.stdout
