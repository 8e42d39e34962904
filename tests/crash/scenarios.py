"""What is killed in the crash tests, and how a store must look after it.

Each scenario is one operation on a store made anew with known items in it: `kept` ones, that no operation touches, and
`going` ones, that the deletes take away. After the kill, `check` looks at the store with ours and with Go's program,
then makes one more layer, and looks for anything that nobody owns.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import layerhold
from tests import inputs, stores

DRIVERS = ("overlay", "vfs")
BASE, LEAF, GOING, NEW, NEXT = ("0a" * 32, "0b" * 32, "0c" * 32, "0d" * 32, "0e" * 32)
KEPT_IMAGE, GOING_IMAGE, NEW_IMAGE = ("1a" * 32, "1c" * 32, "1d" * 32)
KEPT_BOX, GOING_BOX, NEW_BOX = ("2a" * 32, "2c" * 32, "2d" * 32)

# One statement each; `store` is the store, `tar` the path of a tar to bring in.
OPERATIONS = {
    "import": f"store.layers.create({BASE!r}, id={NEW!r}, names=['new'], diff=open(tar, 'rb'))",
    "create-image": f"store.images.create(layer={BASE!r}, id={NEW_IMAGE!r}, data=image_data({NEW_IMAGE!r}))",
    "create-container": f"store.containers.create(image={KEPT_IMAGE!r}, id={NEW_BOX!r}, data={{'key': b'value'}})",
    "delete-layer": f"store.layers[{LEAF!r}].delete()",
    "delete-image": f"store.images[{GOING_IMAGE!r}].delete()",
    "delete-container": f"store.containers[{GOING_BOX!r}].delete()",
}
_START = (
    "import sys; from tests.crash.scenarios import image_data, open_store\n"
    "root, driver, tar = sys.argv[1:]; store = open_store(root, driver)\n"
)


class Scenario(NamedTuple):
    """An operation on a driver's store."""

    operation: str
    driver: str

    def command(self) -> str:
        """The Python that does it; `sys.argv` has the store's folder, the driver and a tar."""
        return _START + OPERATIONS[self.operation]


def open_store(folder: str | Path, driver: str) -> layerhold.Store:
    """Open the store in a folder, laid out as `stores.Place`."""
    return layerhold.Store.open(graphroot=f"{folder}/root", runroot=f"{folder}/run", driver=driver)


def layer_tar(number: int, files: int = 6) -> bytes:
    """A small layer: a few files, a link, a directory of its own, and one name that each has."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(inputs.entry(f"dir{number}", tarfile.DIRTYPE, 0o755))
        for file in range(files):
            data = f"{number} {file}\n".encode() * (file + 1)
            tar.addfile(inputs.entry(f"dir{number}/file{file}", size=len(data)), io.BytesIO(data))
        tar.addfile(inputs.entry("link", tarfile.SYMTYPE, 0o777, linkname=f"dir{number}/file0"))
        tar.addfile(inputs.entry("same", size=1), io.BytesIO(b"%d" % (number % 10)))
    return out.getvalue()


def image_data(id: str) -> dict[str, bytes]:
    """The configuration and manifest of an image on the base layer, as Podman wants them."""
    digest = f"sha256:{hashlib.sha256(layer_tar(1)).hexdigest()}"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
            "id": id,
        }
    ).encode()
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", "digest": config_digest, "size": len(config)},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar", "digest": digest, "size": len(layer_tar(1))}],
    }
    return {"manifest": json.dumps(manifest).encode(), config_digest: config}


def prepare(folder: Path, driver: str) -> None:
    """Make the store on which every scenario of `driver` starts."""
    with open_store(folder, driver) as store:
        base = store.layers.create(id=BASE, names=["base"], diff=io.BytesIO(layer_tar(1)))
        store.layers.create(base, id=LEAF, names=["leaf"], diff=io.BytesIO(layer_tar(2)))
        store.layers.create(base, id=GOING, names=["going"], diff=io.BytesIO(layer_tar(3)))
        store.images.create(layer=BASE, id=KEPT_IMAGE, names=["localhost/kept:1"], data=image_data(KEPT_IMAGE))
        store.images.create(layer=GOING, id=GOING_IMAGE, names=["localhost/going:1"], data=image_data(GOING_IMAGE))
        store.containers.create(image=KEPT_IMAGE, id=KEPT_BOX, names=["kept"], data={"key": b"value"})
        store.containers.create(image=KEPT_IMAGE, id=GOING_BOX, names=["going"], data={"key": b"value"})


# -- after the kill


def check(place: stores.Place, scenario: Scenario, expected: set[str], *, go_first: bool, podman: bool = False) -> None:
    """Assert all that must hold after a kill; `expected` is from `sweep.moments`.

    Go's program clears up as well, and would hide what ours leaves: without `go_first` it looks at the very end only.
    """
    if go_first:
        go_looks(place, scenario)
    _we_look(place, scenario)
    with open_store(place.folder, place.driver) as store:
        store.layers.create(BASE, id=NEXT, diff=io.BytesIO(layer_tar(5)))
    left = leftovers(place) | (paths(place) - expected)
    assert not left, f"left behind: {sorted(left)}"
    go_looks(place, scenario)
    if podman:
        listed = place.podman58("images", "--format", "{{.Repository}}:{{.Tag}}")
        assert listed.returncode == 0, listed.stderr
        assert "localhost/kept:1" in listed.stdout.split(), listed.stdout


def _we_look(place: stores.Place, scenario: Scenario) -> None:
    with open_store(place.folder, place.driver) as store:
        tars = {BASE: 1, GOING: 3, LEAF: 2, NEW: 4}
        for layer in store.layers:
            if (number := tars.get(layer.id)) is not None:
                with layer.diff(compression=0) as stream:
                    assert stream.read() == layer_tar(number), f"layer {layer.id} is not what came in"
        for image in store.images:
            assert _data(image) == image_data(image.id), f"the data of image {image.id}"
            assert store.layers.get(image.layer_id), f"image {image.id} has lost its layer"
        for box in store.containers:
            assert store.layers.get(box.layer_id), f"container {box.id} has lost its layer"
            assert _data(box) == {"key": b"value"}, f"the data of container {box.id}"
        _kept_is_there(
            scenario,
            {item.id for item in store.layers},
            {item.id for item in store.images},
            {item.id for item in store.containers},
        )


def _data(item: layerhold.Image | layerhold.Container) -> dict[str, bytes]:
    return {key: item.data[key] for key in item.data}


def go_looks(place: stores.Place, scenario: Scenario) -> None:
    """Assert that Go's program lists what no kill may lose, and reads the base layer."""
    layers, images, containers = (
        {item["id"] for item in place.go_json(kind)} for kind in ("layers", "images", "containers")
    )
    _kept_is_there(scenario, layers, images, containers)
    assert place.go("diff", "-u", BASE).stdout == layer_tar(1).decode(), "Go's diff is not what came in"


def _kept_is_there(scenario: Scenario, layers: set[str], images: set[str], containers: set[str]) -> None:
    operation = scenario.operation
    assert layers >= {BASE} | ({LEAF} if operation != "delete-layer" else set()), "a finished layer is lost"
    assert images >= {KEPT_IMAGE} | ({GOING_IMAGE} if operation != "delete-image" else set()), "an image is lost"
    assert containers >= {KEPT_BOX} | ({GOING_BOX} if operation != "delete-container" else set()), "a container is lost"
    assert GOING in layers or GOING_IMAGE not in images, "an image without its layer"


def known_ids(place: stores.Place) -> dict[str, set[str]]:
    """The IDs of the records on disk, incomplete ones too."""
    found: dict[str, set[str]] = {"layers": set(), "images": set(), "containers": set()}
    for kind in found:
        for name in (f"{kind}.json", f"volatile-{kind}.json"):
            file = place.root / f"{place.driver}-{kind}" / name
            if file.exists():
                records: list[dict[str, Any]] = json.loads(file.read_text() or "[]")
                found[kind] |= {record["id"] for record in records}
    return found


def leftovers(place: stores.Place) -> set[str]:
    """Files and directories of the store that belong to no record, or are of the kinds that do not outlive a write."""
    known = known_ids(place)
    found = set()
    for path in walk(place):
        name = path.rsplit("/", 1)[-1]
        match = re.search(r"[0-9a-f]{64}", path)
        kind = next((kind for kind in known if f"{place.driver}-{kind}/" in path), "layers")
        if (match and match[0] not in known[kind]) or re.match(r"(\.tmp-|\.pending-|temp-dir-|lock-\d)", name):
            found.add(path)
    links, layers = place.root / "overlay" / "l", known["layers"]
    if place.driver == "overlay" and len(list(links.iterdir())) != len(layers):
        found.add(f"{len(list(links.iterdir()))} short links for {len(layers)} layers")
    for id in layers:
        home = place.root / ("vfs/dir" if place.driver == "vfs" else "overlay") / id
        if not home.is_dir():
            found.add(f"a record without a directory: {id}")
    return found


def paths(place: stores.Place) -> set[str]:
    """The paths of a store, IDs and short links taken out, the insides of layers not looked at."""
    found = set()
    for path in walk(place):
        short = re.sub(r"[0-9a-f]{64}", "<id>", path)
        found.add(re.sub(r"/l/[A-Z0-9]{26}$", "/l/<link>", short))
    return found


def walk(place: stores.Place, folder: str = "") -> Iterator[str]:
    """All paths below the store's roots but those within the tree of a layer."""
    for entry in os.scandir(place.folder / folder):
        path = os.path.join(folder, entry.name)
        yield path
        inside = re.search(r"/vfs/dir/[^/]+$|/overlay/[0-9a-f]{64}/(diff|work|merged|empty)$", path)
        if entry.is_dir(follow_symlinks=False) and not inside:
            yield from walk(place, path)
