"""An image made wholly by Layerhold, listed and run by Podman, old and new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerhold
from tests import programs, stores
from tests.inputs import Input
from tests.stores import Place

pytestmark = [pytest.mark.root, pytest.mark.compat]
NAME = "localhost/made-by-layerhold:1"


def build_image(store: layerhold.Store, layer: layerhold.Layer) -> layerhold.Image:
    """Make the least image that Podman lists and runs."""
    record = layer.record
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [record.diff_digest]},
        }
    ).encode()
    digest = "sha256:" + hashlib.sha256(config).hexdigest()
    blob = {"digest": record.compressed_diff_digest, "size": record.compressed_size}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **blob}],
    }
    data = {digest: config, "manifest": json.dumps(manifest).encode()}
    return store.images.create(layer=layer, id=digest[7:], names=[NAME], data=data)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A store with one image, all of it ours."""
    with stores.scratch("podman") as folder:
        yield Place(folder, "overlay")


@pytest.fixture(scope="module")
def image(place: Place, rootfs: Input) -> layerhold.Image:
    store = layerhold.Store.open(graphroot=place.root, runroot=place.run, driver="overlay")
    with Path(rootfs.gz).open("rb") as tar:
        return build_image(store, store.layers.create(diff=tar))


@pytest.mark.parametrize("version", ["4.3", "5.8"])
def test_podman_lists_it_and_runs_a_shell_in_it(place: Place, image: layerhold.Image, version: str) -> None:
    podman = place.podman43 if version == "4.3" else place.podman58
    listed = podman("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")
    # The newer podman may have a line to say about the database of the older.
    assert listed.stdout.splitlines()[-1] == f"sha256:{image.id} {NAME}", listed.stderr
    script = "echo $((6 * 7)); . /etc/os-release; echo $ID; echo written > /new; cat /new"
    ran = podman("run", *programs.RUN_FLAGS, NAME, "sh", "-c", script)
    assert (ran.returncode, ran.stdout.split()) == (0, ["42", "debian", "written"]), ran.stderr
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver="overlay") as store:
        assert [found.names for found in store.images] == [(NAME,)]
        assert len(store.containers) == 0  # `--rm` removed what podman had made


def test_a_container_of_podmans_is_ours_to_look_into(place: Place, image: layerhold.Image) -> None:
    flags = [flag for flag in programs.RUN_FLAGS if flag != "--rm"]
    ran = place.podman58("run", *flags, "--name", "kept", image.id, "sh", "-c", "echo mark > /etc/mark; rm /etc/fstab")
    assert ran.returncode == 0, ran.stderr
    with layerhold.Store.open(graphroot=place.root, runroot=place.run, driver="overlay") as store:
        container = store.containers["kept"]
        assert container.image_id == image.id
        changes = {change.path: change.kind for change in container.layer.changes()}
        assert (changes[b"/etc/mark"], changes[b"/etc/fstab"]) == (1, 2)
        with container.layer.mount() as root:
            assert (root / "etc/mark").read_text() == "mark\n"
    removed = place.podman58("rm", "kept")
    assert removed.returncode == 0, removed.stderr
