"""An image that skopeo wrote, seen by Layerhold as containers-storage sees it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold.testing import trees
from tests import inputs, programs, stores
from tests.stores import Place

pytestmark = [pytest.mark.root, pytest.mark.compat]
NAME = "localhost/from-skopeo:1"


def oci_layout(folder: Path) -> Path:
    """Write an OCI layout with an image of two layers, the second with whiteouts."""
    layout = folder / "oci"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return f"sha256:{digest}", len(data)

    odd = inputs.odd()
    packed = [
        subprocess.run(["gzip", "-n"], input=odd[name], capture_output=True, check=True).stdout for name in LAYERS
    ]
    diff_ids = ["sha256:" + hashlib.sha256(odd[name]).hexdigest() for name in LAYERS]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config, size = blob(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode())
    kind = "application/vnd.oci.image"
    layers = [{"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": d, "size": s} for d, s in map(blob, packed)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", "digest": config, "size": size},
        "layers": layers,
    }
    digest, length = blob(json.dumps(manifest).encode())
    index = {"schemaVersion": 2, "manifests": [{"mediaType": manifest["mediaType"], "digest": digest, "size": length}]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return layout


LAYERS = ("plain", "hard-links", "whiteouts")


@pytest.fixture(scope="module", params=["overlay", "vfs"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with stores.scratch("skopeo") as folder:
        place = Place(folder, request.param)
        layout = oci_layout(folder)
        done = programs.skopeo(folder, "copy", f"oci:{layout}", place.reference(NAME))
        assert done.returncode == 0, done.stderr
        yield place


@pytest.mark.parametrize("command", ["images", "layers", "containers"])
def test_the_lists_are_the_same(place: Place, command: str) -> None:
    assert place.ours(command, "-j").stdout == place.go(command, "-j").stdout
    assert place.ours(command).stdout == place.go(command).stdout


def test_the_image_is_the_same(place: Place) -> None:
    assert place.ours("image", NAME).stdout == place.go("image", NAME).stdout
    assert "Size: " in place.ours("image", NAME).stdout
    keys = place.ours("list-image-data", NAME).stdout
    assert keys == place.go("list-image-data", NAME).stdout
    for key in keys.split():
        for what in ("get-image-data", "get-image-data-size", "get-image-data-digest"):
            assert place.ours(what, NAME, key).stdout == place.go(what, NAME, key).stdout


def test_the_layers_come_out_the_same(place: Place) -> None:
    odd = inputs.odd()
    for layer, name in zip(place.ours_json("layers"), LAYERS, strict=True):
        id = layer["id"]
        out = place.folder / "out.tar"
        for run in (place.ours, place.go):
            run("diff", "-u", "-f", str(out), id)
            assert out.read_bytes() == odd[name]
        for what in ("diffsize", "layer"):
            assert place.ours(what, id).stdout == place.go(what, id).stdout
        ours, go = (sorted(run("changes", id).stdout.splitlines()) for run in (place.ours, place.go))
        assert ours == go


def test_the_mounted_tree_is_the_same(place: Place) -> None:
    top = json.loads(place.ours("image", "-j", NAME).stdout)[0]["layer"]
    with place.mounted(top) as root:
        ours = trees.rows(root)
    with place.mounted(top, go=True) as root:
        assert not trees.differences(ours, trees.rows(root))
    assert len(ours) > 3
