"""What is killed in the crash tests, and how a store must look after it.

Each scenario is one operation on a store made anew with known items in it: `kept` ones, that no operation touches, and
`going` ones, that the deletes take away. After the kill, `check` looks at the store with ours and with Go's program,
does the operation again, makes one more layer, and looks for damage, and for anything that nobody owns.

A store is made in one of several ways, `<driver>` or `<driver>-<way>`:

    copied       owners are changed by copies of files, not by mounts
    split, tmpfs images have a root of their own, on the same file system and on another one
    additional   there is an additional store, of which nothing may change
    transient, volatile    records of containers are in the run root; all containers are volatile
    damaged, garbage       a file of an image has changed; there are files without records
    limited      layers that are written to have a limit on their size
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import layerhold
from layerhold.errors import AlreadyExists, NotFound
from layerhold.ids.mappings import IdMappings, IdRange
from tests import inputs, stores

DRIVERS = ("overlay", "vfs", "btrfs")
LAYERS = {"overlay": "overlay", "vfs": "vfs/dir", "btrfs": "btrfs/subvolumes"}  # where they are, in the graph root
BASE, LEAF, GOING, NEW, NEXT, THEIRS = ("0a" * 32, "0b" * 32, "0c" * 32, "0d" * 32, "0e" * 32, "0f" * 32)
KEPT_IMAGE, GOING_IMAGE, NEW_IMAGE, THEIR_IMAGE = ("1a" * 32, "1c" * 32, "1d" * 32, "1f" * 32)
KEPT_BOX, GOING_BOX, NEW_BOX, MAPPED_BOX = ("2a" * 32, "2c" * 32, "2d" * 32, "2e" * 32)
GARBAGE = "3a" * 32
SPAN = (IdRange(container=0, host=100000, size=65536),)
MAPS = IdMappings(uids=SPAN, gids=SPAN)

# One statement each; `store` is the store, `tar` the path of a tar to bring in.
SPLIT = ("split", "tmpfs")
OPERATIONS = {
    "import": f"store.layers.create({BASE!r}, id={NEW!r}, names=['new'], diff=open(tar, 'rb'), writable=False)",
    "create-image": f"store.images.create(layer={BASE!r}, id={NEW_IMAGE!r}, data=image_data({NEW_IMAGE!r}))",
    "create-container": f"store.containers.create(image={KEPT_IMAGE!r}, id={NEW_BOX!r}, data={{'key': b'value'}})",
    "delete-layer": f"store.layers[{LEAF!r}].delete()",
    "delete-image": f"store.images[{GOING_IMAGE!r}].delete()",
    "delete-container": f"store.containers[{GOING_BOX!r}].delete()",
    "create-mapped": (
        f"store.containers.create(image={KEPT_IMAGE!r}, id={NEW_BOX!r}, data={{'key': b'value'}}, mappings=MAPS)"
    ),
    "mount-mapped": f"store.mount({MAPPED_BOX!r})",
    "add-names": f"store.images[{THEIR_IMAGE!r}].add_names(['localhost/new:1'])",
    "take-id": f"store.images.create(layer={BASE!r}, id={THEIR_IMAGE!r}, names=['localhost/new:1'])",
    "repair": "store.repair(store.check())",
    "gc": "store.collect_garbage()",
    "apply": "apply_over_leaf(store)",
    "set-data": f"store.layers[{LEAF!r}].data.set('key', b'value')",
    "batch": "in_one_batch(store, tar)",
}
# What is killed, in which stores.
PLAIN = (*tuple(OPERATIONS)[:6], "apply", "set-data", "batch")
SWEPT = {
    **dict.fromkeys(DRIVERS, PLAIN),
    **dict.fromkeys(("vfs-copied", "overlay-copied"), ("create-mapped",)),
    "overlay-mapped": ("create-mapped", "mount-mapped", "delete-container"),
    **dict.fromkeys(("vfs-additional", "overlay-additional"), ("add-names", "take-id", "create-container")),
    "overlay-split": PLAIN,
    "overlay-tmpfs": ("import", "create-image", "delete-layer", "delete-image", "create-mapped"),
    **dict.fromkeys(("vfs-volatile", "overlay-transient"), ("create-container", "delete-container")),
    **dict.fromkeys(("vfs-damaged", "overlay-damaged"), ("repair",)),
    **dict.fromkeys(("vfs-garbage", "overlay-garbage"), ("gc",)),
    "btrfs-limited": ("create-container", "delete-container"),
}
# What `make soak` alone does: long, and the same steps of the same code as in the other stores.
ONLY_SOAKED = {
    "vfs": {"batch"},
    "btrfs": {"batch", "apply"},
    "overlay-split": {"batch", "apply", "set-data"},
}
_START = (
    "import sys; from tests.crash.scenarios import MAPS, apply_over_leaf, image_data, in_one_batch, open_store\n"
    "root, driver, tar = sys.argv[1:]; store = open_store(root, driver)\n"
)


class Scenario(NamedTuple):
    """An operation on a store that was made in one of the ways."""

    operation: str
    made: str

    def command(self) -> str:
        """The Python that does it; `sys.argv` has the store's folder, how it is made, and a tar."""
        return _START + OPERATIONS[self.operation]


def in_one_batch(store: layerhold.Store, tar: str | Path) -> None:
    """Make, remove and replace layers, and make an image, in one batch."""
    with store.writing() as batch, open(tar, "rb") as new:
        batch.layers.create(BASE, id=NEW, names=["new"], diff=new, writable=False)
        batch.layers[LEAF].delete()
        batch.layers.create(NEW, id=NEXT).delete()
        batch.images.create(layer=NEW, id=NEW_IMAGE, data=image_data(NEW_IMAGE))
        batch.layers.create(BASE, id=LEAF, names=["leaf"], diff=io.BytesIO(layer_tar(2)), writable=False)


def driver_of(made: str) -> str:
    """Say which driver a store has."""
    return made.partition("-")[0]


def apply_over_leaf(store: layerhold.Store) -> None:
    """Change the content of all files of a layer."""
    store.layers[LEAF].apply(io.BytesIO(layer_tar(2, content=7)))


def open_store(folder: str | Path, made: str) -> layerhold.Store:
    """Open the store in a folder, laid out as `Place`."""
    driver, _, way = made.partition("-")
    config = layerhold.Config.load(graphroot=f"{folder}/root", runroot=f"{folder}/run", driver=driver)
    return layerhold.Store.open(
        config.replace(
            imagestore=f"{folder}/images" if way in SPLIT else "",
            additional_image_stores=(f"{folder}/additional",) if way == "additional" else (),
            transient_store=way == "transient",
            idmapped_mounts=way != "copied",
            options=("btrfs.size=64M",) if way == "limited" else (),
        )
    )


class Place(stores.Place):
    """A store that was made in one of the ways; the roots besides its own are `images` and `additional`."""

    def __init__(self, folder: Path, made: str) -> None:
        driver, _, self.way = made.partition("-")
        self.made = made
        super().__init__(
            folder, driver, [f"{driver}.imagestore={folder}/additional"] if self.way == "additional" else []
        )

    @property
    def flags(self) -> list[str]:
        """The global options that name this store."""
        images = ["--image-store", str(self.folder / "images")] if self.way in SPLIT else []
        return [*super().flags, *images, *(["--transient-store"] if self.way == "transient" else [])]


def layer_tar(number: int, files: int = 6, content: int | None = None) -> bytes:
    """A small layer: a few files, a link, a directory of its own, and one name that each has.

    `content` is the number in the files, the layer's if it is not given.
    """
    content = number if content is None else content
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(inputs.entry(f"dir{number}", tarfile.DIRTYPE, 0o755))
        for file in range(files):
            data = f"{content} {file}\n".encode() * (file + 1)
            tar.addfile(inputs.entry(f"dir{number}/file{file}", size=len(data)), io.BytesIO(data))
        tar.addfile(inputs.entry("link", tarfile.SYMTYPE, 0o777, linkname=f"dir{number}/file0"))
        tar.addfile(inputs.entry("same", size=1), io.BytesIO(b"%d" % (content % 10)))
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


def prepare(folder: Path, made: str) -> None:
    """Make the store on which every scenario of the stores that are `made` so starts."""
    way = made.partition("-")[2]
    if way == "additional":
        _prepare_additional(folder / "additional", made.partition("-")[0])
    with open_store(folder, made) as store:
        base = store.layers.create(id=BASE, names=["base"], diff=io.BytesIO(layer_tar(1)), writable=False)
        store.layers.create(base, id=LEAF, names=["leaf"], diff=io.BytesIO(layer_tar(2)), writable=False)
        store.layers.create(base, id=GOING, names=["going"], diff=io.BytesIO(layer_tar(3)), writable=False)
        store.images.create(layer=BASE, id=KEPT_IMAGE, names=["localhost/kept:1"], data=image_data(KEPT_IMAGE))
        store.images.create(layer=GOING, id=GOING_IMAGE, names=["localhost/going:1"], data=image_data(GOING_IMAGE))
        for id, name, maps in (
            (KEPT_BOX, "kept", None),
            (GOING_BOX, "going", MAPS if way == "mapped" else None),
            *([(MAPPED_BOX, "mapped", MAPS)] if way == "mapped" else []),
        ):
            data = {"key": b"value"}
            store.containers.create(
                image=KEPT_IMAGE, id=id, names=[name], data=data, mappings=maps, volatile=way == "volatile"
            )
        if way == "damaged":
            own = store.driver.path(GOING)
            (Path(own) / ("diff" if store.driver.name == "overlay" else "") / "dir3/file2").write_text("damaged")
    if way == "garbage":
        _leave_garbage(Place(folder, made))


def _prepare_additional(folder: Path, driver: str) -> None:
    with layerhold.Store.open(graphroot=folder, runroot=f"{folder}-run", driver=driver) as store:
        layer = store.layers.create(id=THEIRS, names=["theirs"], diff=io.BytesIO(layer_tar(6)))
        store.images.create(layer=layer, id=THEIR_IMAGE, names=["localhost/theirs:1"], data=image_data(THEIR_IMAGE))
        store.shutdown()


def _leave_garbage(place: Place) -> None:
    homes = [place.root / f"{place.driver}-{kind}" / GARBAGE for kind in ("layers", "images", "containers")]
    homes += [place.root / LAYERS[place.driver] / GARBAGE / "diff"]
    for home in homes:
        home.mkdir(parents=True)
        (home / "file").write_text("garbage")
    homes[0].with_name(f"{GARBAGE}.tar-split.gz").write_text("garbage")


# -- after the kill


def check(place: Place, scenario: Scenario, expected: set[str], *, go_first: bool, podman: bool = False) -> None:
    """Assert all that must hold after a kill; `expected` is from `sweep.moments`.

    Go's program clears up as well, and would hide what ours leaves: without `go_first` it looks at the very end only.
    """
    if go_first:
        go_looks(place, scenario)
    _we_look(place, scenario)
    again(place, scenario)
    with open_store(place.folder, place.made) as store:
        store.layers.create(BASE, id=NEXT, diff=io.BytesIO(layer_tar(5)))
        report = store.check(unreferenced_for=1e9)
        assert report.ok or (scenario.operation != "repair" and place.way == "damaged"), vars(report)
    left = leftovers(place) | (paths(place) - expected)
    assert not left, f"left behind: {sorted(left)}"
    go_looks(place, scenario)
    if podman:
        listed = place.podman58("images", "--format", "{{.Repository}}:{{.Tag}}")
        assert listed.returncode == 0, listed.stderr
        assert "localhost/kept:1" in listed.stdout.split(), listed.stdout


def again(place: Place, scenario: Scenario) -> None:
    """Do the operation once more: it succeeds, or says that what it makes is there, or what it removes is not."""
    tar = place.folder.parent / "new.tar"
    with open_store(place.folder, place.made) as store, suppress(AlreadyExists, NotFound):
        exec(OPERATIONS[scenario.operation], {**globals(), "store": store, "tar": tar})
    if place.way == "mapped":
        with open_store(place.folder, place.made) as store:
            with store.mount(MAPPED_BOX) as top:
                assert (top / "same").stat().st_uid == SPAN[0].host
            store.unmount(MAPPED_BOX, force=True)
            store.containers[MAPPED_BOX].delete()
        assert set(stores.mounts_below(place.folder)) <= {str(place.root / "overlay")}, "something is mounted"


def _we_look(place: Place, scenario: Scenario) -> None:
    with open_store(place.folder, place.made) as store:
        tars = {BASE: 1, LEAF: 2, NEW: 4, THEIRS: 6, **({} if place.way == "damaged" else {GOING: 3})}
        if scenario.operation == "apply":
            del tars[LEAF]
            assert store.check(unreferenced_for=1e9).ok, "a layer is not what its record says"
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


def go_looks(place: Place, scenario: Scenario) -> None:
    """Assert that Go's program lists what no kill may lose, and reads the base layer."""
    layers, images, containers = (
        {item["id"] for item in place.go_json(kind)} for kind in ("layers", "images", "containers")
    )
    _kept_is_there(scenario, layers, images, containers)
    assert place.go("diff", "-u", BASE).stdout == layer_tar(1).decode(), "Go's diff is not what came in"


def _kept_is_there(scenario: Scenario, layers: set[str], images: set[str], containers: set[str]) -> None:
    operation = scenario.operation
    assert layers >= {BASE} | ({LEAF} if operation not in ("delete-layer", "batch") else set()), "a layer is lost"
    stays = operation not in ("delete-image", "repair")
    assert images >= {KEPT_IMAGE} | ({GOING_IMAGE} if stays else set()), "an image is lost"
    if scenario.made.endswith("-additional"):
        assert THEIRS in layers, "another store's layer is lost"
        assert THEIR_IMAGE in images, "another store's image is lost"
    assert containers >= {KEPT_BOX} | ({GOING_BOX} if operation != "delete-container" else set()), "a container is lost"
    assert GOING in layers or GOING_IMAGE not in images, "an image without its layer"


def known_ids(place: Place) -> dict[str, set[str]]:
    """The IDs of the records on disk, incomplete ones too."""
    found: dict[str, set[str]] = {"layers": set(), "images": set(), "containers": set()}
    for kind, root in product(found, (place.root, place.run, *_other_roots(place))):
        for name in (f"{kind}.json", f"volatile-{kind}.json"):
            file = root / f"{place.driver}-{kind}" / name
            if file.exists():
                records: list[dict[str, Any]] = json.loads(file.read_text() or "[]")
                found[kind] |= {record["id"] for record in records}
    return found


def _other_roots(place: Place) -> list[Path]:
    return [root for name in ("images", "additional") if (root := place.folder / name).is_dir()]


def leftovers(place: Place) -> set[str]:
    """Files and directories of the store that belong to no record, or are of the kinds that do not outlive a write."""
    known = known_ids(place)
    found = set()
    for path in walk(place):
        name = path.rsplit("/", 1)[-1]
        match = re.search(r"[0-9a-f]{64}", path)
        kind = next((kind for kind in known if f"{place.driver}-{kind}/" in path), "layers")
        if (match and match[0] not in known[kind]) or re.match(r"(\.tmp-|\.pending-|\.batch-|temp-dir-|lock-\d)", name):
            found.add(path)
    there: set[str] = set()
    for home in [root / LAYERS[place.driver] for root in (place.root, *_other_roots(place))]:
        ids = {path.name for path in home.iterdir() if len(path.name) == 64}
        there |= ids
        links = len(list((home / "l").iterdir())) if place.driver == "overlay" else len(ids)
        if links != len(ids):
            found.add(f"{home}: {links} short links for {len(ids)} layers")
    return found | {f"a record without a directory: {id}" for id in known["layers"] - there}


def paths(place: Place) -> set[str]:
    """The paths of a store, IDs and short links taken out, the insides of layers not looked at."""
    found = set()
    for path in walk(place):
        if "/quotas/.gone-" in path:
            continue  # it stays until the kernel is done
        short = re.sub(r"[0-9a-f]{64}", "<id>", path)
        found.add(re.sub(r"/l/[A-Z0-9]{26}$", "/l/<link>", short))
    return found


def walk(place: Place, folder: str = "") -> Iterator[str]:
    """All paths below the store's roots but those within the tree of a layer."""
    for entry in os.scandir(place.folder / folder):
        path = os.path.join(folder, entry.name)
        yield path
        inside = re.search(
            r"/vfs/dir/[^/]+$|/btrfs/subvolumes/[^/]+$|/overlay/[0-9a-f]{64}/(diff\d*|work|merged|empty)$", path
        )
        if entry.is_dir(follow_symlinks=False) and not inside:
            yield from walk(place, path)
