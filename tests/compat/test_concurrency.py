"""Several processes of ours and of Go's on one store at once, and long-lived readers of both."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import layerhold
from tests import inputs, programs
from tests.stores import Place

pytestmark = [pytest.mark.root, pytest.mark.compat]

WRITERS, LAYERS = 4, 50
# Every fifth layer starts a new chain; every third image goes again, and with it nothing that another one needs.
OURS = f"""
import sys
import layerhold

who, root, run, driver = sys.argv[1:]
with layerhold.Store.open(graphroot=root, runroot=run, driver=driver) as store:
    layer = None
    for number in range({LAYERS}):
        layer = store.layers.create(layer if number % 5 else None, names=[f"ours-{{who}}-{{number}}"])
        store.images.create(layer=layer, names=[f"image-ours-{{who}}-{{number}}"], data={{"manifest": b"{{}}"}})
        gone = store.layers.create(layer, names=[f"gone-ours-{{who}}-{{number}}"])
        image = store.images.create(layer=gone, names=[f"gone-image-ours-{{who}}-{{number}}"])
        assert image.delete() == [gone.id], number
"""
GO = f"""
set -eu
who=$1; shift
for number in $(seq 0 {LAYERS - 1}); do
  [ $((number % 5)) != 0 ] || parent=
  "$@" create-layer -n go-$who-$number $parent
  parent=go-$who-$number
  "$@" create-image -n image-go-$who-$number $parent
  "$@" create-layer -n gone-go-$who-$number $parent
  "$@" create-image -n gone-image-go-$who-$number gone-go-$who-$number
  "$@" delete-image gone-image-go-$who-$number
done
"""


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_eight_writers_lose_nothing(store_dir: Path, driver: str) -> None:
    place = Place(store_dir, driver)
    go = [programs.storage(), *place.flags]
    writers = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for who in range(WRITERS)
        for words in (
            [sys.executable, "-c", OURS, str(who), str(place.root), str(place.run), driver],
            ["bash", "-c", GO, "-", str(who), *go],
        )
    ]
    failures = [writer.communicate(timeout=300)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * len(writers), failures

    expected = {f"{kind}-{who}-{number}" for kind in ("ours", "go") for who in range(4) for number in range(LAYERS)}
    layers = place.go_json("layers")
    assert layers == place.ours_json("layers")
    assert {name for layer in layers for name in layer.get("names", ())} == expected
    assert not [layer for layer in layers if "incomplete" in layer.get("flags", {})]
    images = place.go_json("images")
    assert images == place.ours_json("images")
    assert {name for image in images for name in image["names"]} == {f"image-{name}" for name in expected}
    checked = place.go("check", "-m", "0s", check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_process_of_ours_that_stays_open_sees_what_go_does(store_dir: Path) -> None:
    place = Place(store_dir, "overlay")
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver="overlay") as store:
        assert len(store.layers) == 0
        place.go("create-layer", "-n", "theirs")
        assert store.layers["theirs"].names == ("theirs",)
        ours = store.layers.create("theirs", names=["ours"])
        place.go("add-names", "-n", "more", "ours")
        assert ours.refresh().names == ("more", "ours")
        place.go("delete-layer", ours.id)
        assert "ours" not in store.layers


@contextmanager
def podman_service(folder: Path) -> Iterator[Path]:
    """Run `podman system service`, which keeps its records from one request to the next."""
    path = folder / "podman.sock"
    words = programs.podman_command("sid", folder, "system", "service", "--time=0", f"unix://{path}")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as service:
        try:
            for _ in range(200):
                if path.exists() or service.poll() is not None:
                    break
                time.sleep(0.05)
            yield path
        finally:
            service.terminate()


def images_of(path: Path) -> set[str]:
    """Ask the service for the names of its images."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(30)
    connection.sock.connect(str(path))
    try:
        connection.request("GET", "/v4.0.0/libpod/images/json")
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    assert isinstance(answer, list), answer
    return {name for image in answer for name in image["Names"] or ()}


def make_image(store: layerhold.Store, name: str) -> layerhold.Image:
    """Make an image that podman lists."""
    layer = store.layers.create(diff=io.BytesIO(inputs.odd()["plain"]))  # podman 5.8 wants layers of a known size
    rootfs = {"type": "layers", "diff_ids": [layer.record.diff_digest]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs, "author": name})
    digest = "sha256:" + hashlib.sha256(config.encode()).hexdigest()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(config)},
        "layers": [],
    }
    data = {digest: config.encode(), "manifest": json.dumps(manifest).encode()}
    return store.images.create(layer=layer, id=digest[7:], names=[name], data=data)


def test_a_running_podman_service_and_ours_see_each_other(store_dir: Path) -> None:
    place = Place(store_dir, "overlay")
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver="overlay") as store:
        first = make_image(store, "localhost/first:1")
        with podman_service(store_dir) as service:
            assert images_of(service) == {"localhost/first:1"}
            make_image(store, "localhost/second:1")
            assert images_of(service) == {"localhost/first:1", "localhost/second:1"}
            first.set_names(["localhost/renamed:1"])
            assert images_of(service) == {"localhost/renamed:1", "localhost/second:1"}
            first.delete()
            assert images_of(service) == {"localhost/second:1"}
            tagged = place.podman58("tag", "localhost/second:1", "localhost/third:1")
            assert tagged.returncode == 0, tagged.stderr
            assert "localhost/third:1" in store.images
            removed = place.podman58("rmi", "localhost/second:1", "localhost/third:1")
            assert removed.returncode == 0, removed.stderr
            assert len(store.images) == 0
            assert images_of(service) == set()
