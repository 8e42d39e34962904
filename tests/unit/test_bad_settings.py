"""What bad settings and words get, from the library and from the command: a clear error, and a store as it was.

Each row of a table: what is wrong, the exception, and a text that names it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import layerhold
from layerhold import Store, errors
from layerhold.config import Config
from layerhold.errors import StorePassedOver
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.userns import AutoUserns
from tests import stores
from tests.unit.test_bad_input import GOOD
from tests.users import OrdinaryUser

Action = Callable[[Store], Any]


def opened(folder: Path, driver: str = "vfs", **settings: Any) -> Store:
    """Open the store in a folder with these settings."""
    config = Config.load(graphroot=folder / "root", runroot=folder / "run", driver=driver)
    return Store.open(config.replace(**settings))


def fill(store: Store, name: str) -> None:
    base = store.layers.create(diff=io.BytesIO(GOOD), names=[f"{name}-base"], id=name[0].encode().hex() * 32)
    top = store.layers.create(base, names=[f"{name}-layer"])
    store.images.create(layer=top, names=[f"{name}-image"], data={"manifest": b"{}", "more": b"1"})


def content(folder: Path) -> dict[str, bytes | str]:
    """Every path below `folder`, with what is in it; not what a driver found out about the kernel."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        if path.parent != folder / "run" / "overlay":
            plain = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = path.read_bytes() if plain else str(path.lstat().st_mode)
    return found


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    before = content(folder)
    yield
    assert content(folder) == before


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a store that has layers, an image and a container."""
    with opened(tmp_path) as store:
        fill(store, "own")
        store.containers.create(image="own-image", names=["box"])
    return tmp_path


# -- words given to a store


def maps(*spans: tuple[int, int, int]) -> IdMappings:
    ranges = tuple(IdRange(container=inside, host=outside, size=size) for inside, outside, size in spans)
    return IdMappings(uids=ranges, gids=ranges)


OVERLAPPING = maps((0, 1000, 10), (5, 5000, 10))
ALSO_OVERLAPPING = maps((0, 1000, 10), (10, 1005, 10))
LONG = "k" * 300

WORDS: dict[str, tuple[Action, type[Exception], str]] = {
    "maps that overlap inside": (
        lambda store: store.layers.create(mappings=OVERLAPPING),
        errors.InvalidMappings,
        "0:1000:10 and 5:5000:10: they overlap on the side of the container",
    ),
    "maps that overlap outside": (
        lambda store: store.containers.create(image="own-image", mappings=ALSO_OVERLAPPING),
        errors.InvalidMappings,
        "0:1000:10 and 10:1005:10: they overlap on the side of the host",
    ),
    "maps without root": (
        lambda store: store.layers.create(mappings=maps((1, 1000, 10))),
        errors.StorageError,
        "container ID 0 cannot be mapped",
    ),
    "maps without root, of a container": (
        lambda store: store.containers.create(image="own-image", mappings=maps((1, 1000, 10))),
        errors.StorageError,
        f"container ID {os.getuid()} cannot be mapped",
    ),
    "a map of no IDs": (
        lambda store: store.containers.create(mappings=maps((0, 1000, 0))),
        errors.InvalidMappings,
        "0:1000:0: it has no IDs",
    ),
    "a map below 0": (
        lambda store: store.containers.create(mappings=maps((0, -5, 10))),
        errors.InvalidMappings,
        "0:-5:10: IDs are numbers from 0",
    ),
    "a map beyond the last ID": (
        lambda store: store.layers.create(mappings=maps((0, 2**32 - 5, 10))),
        errors.InvalidMappings,
        "IDs are numbers from 0",
    ),
    "an image's digest that is too short": (
        lambda store: store.images.create(digest="sha256:12"),
        errors.InvalidDigestLength,
        'image digest "sha256:12"',
    ),
    "an image's digest that is none": (
        lambda store: store.images.create(digest="nonsense"),
        errors.InvalidDigest,
        'image digest "nonsense"',
    ),
    "a digest to expect that is none": (
        lambda store: store.layers.create(diff=io.BytesIO(GOOD), expect="nonsense"),
        errors.InvalidDigest,
        "nonsense",
    ),
    "an algorithm that nobody knows": (
        lambda store: store.layers.create(diff=io.BytesIO(GOOD), expect="md7:" + "0" * 64),
        errors.UnsupportedDigest,
        "md7",
    ),
    "an algorithm that is not computed": (
        lambda store: store.layers.create(diff=io.BytesIO(GOOD), expect="sha512:" + "0" * 128),
        errors.UnsupportedDigest,
        "sha512",
    ),
    "an image with an empty key": (
        lambda store: store.images.create(data={"good": b"", "": b""}),
        errors.InvalidBigDataName,
        "an empty key",
    ),
    "a container with a key that leads away": (
        lambda store: store.containers.create(data={"..": b""}),
        errors.InvalidBigDataName,
        '".."',
    ),
    "an empty key": (
        lambda store: store.layers["own-layer"].data.set("", b"x"),
        errors.InvalidBigDataName,
        "empty name for layer",
    ),
    "a key whose file's name would have a slash": (
        lambda store: store.images["own-image"].data.set("???", b"x"),
        errors.InvalidBigDataName,
        '"???" would be in a file with a slash in its name',
    ),
    "a key that is too long": (
        lambda store: store.containers["box"].data.set(LONG, b"x"),
        errors.InvalidBigDataName,
        "a key of 300 characters",
    ),
    "a key that is a directory's name": (
        lambda store: store.containers["box"].data.set("userdata", b"x"),
        errors.InvalidBigDataName,
        '"userdata" is the name of a directory',
    ),
    "mount options where nothing is mounted": (
        lambda store: store.mount("box", options=["nodev"]),
        errors.DriverError,
        "vfs driver does not support mount options",
    ),
    "a way to compare files that there is not": (lambda store: store.dedup(method="md5"), ValueError, "md5"),
    "a parent that is not there": (
        lambda store: store.layers.create("no-such"),
        errors.LayerUnknown,
        "layer not known",
    ),
    "an image that is not there": (
        lambda store: store.containers.create(image="no-such"),
        errors.ImageUnknown,
        'image with ID "no-such"',
    ),
    "a user namespace of less than nothing": (
        lambda store: store.containers.create(mappings=AutoUserns(size=1, additional=OVERLAPPING)),
        errors.InvalidMappings,
        "conflicts with other mappings",
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_words(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    action, kind, text = WORDS[name]
    some = (IdRange(container=0, host=200000, size=1000),)
    monkeypatch.setattr("layerhold.ids.subids.subuids_of", lambda _user: some)
    monkeypatch.setattr("layerhold.ids.subids.subgids_of", lambda _group: some)
    with opened(place) as store:
        if "user namespace" in name:
            (place / "root/userns.lock").touch()
        with unchanged(place), pytest.raises(kind) as raised:
            action(store)
        assert text in str(raised.value)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("create-layer --uidmap 0:1000:10:5:5000:10", "they overlap on the side of the container"),
        ("create-container --gidmap 0:1000:0 own-image", "it has no IDs"),
        ("create-layer --uidmap 0:x:1", 'uid setting is malformed expected ["uint32:uint32:uint32"]'),
        ("create-image -d sha256:12 own-layer", "invalid checksum digest length"),
        ("images-by-digest nonsense", "invalid checksum digest format"),
        ("set-image-data -f /dev/null own-image ???", '"???" would be in a file with a slash in its name'),
        ("set-container-data -f /dev/null box userdata", '"userdata" is the name of a directory'),
        ("create-layer -i a/b", "slash"),
        ("dedup --hash-method md5", "invalid hash method"),
        ("create-layer no-such", "layer not known"),
    ],
)
def test_words_for_the_command(place: Path, line: str, text: str) -> None:
    with unchanged(place):
        done = stores.Place(place).ours(*line.split(), check=False)
    assert done.returncode
    assert text in done.stdout + done.stderr


def test_a_name_may_have_line_breaks(place: Path) -> None:
    """As Go's program takes them, and prints them as they are."""
    with opened(place) as store:
        store.layers["own-layer"].set_names(["a\nb", "c\td"])
    listed = stores.Place(place).ours("layers").stdout
    assert "\tname: a\nb\n\tname: c\td\n" in listed
    assert json.loads(stores.Place(place).ours("layer", "-j", "a\nb").stdout)[0]["names"] == ["a\nb", "c\td"]


# -- how a store is opened

SETTINGS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an option without a value": ({"options": ("nonsense",)}, errors.BadConfig, "nonsense"),
    "an unknown option": ({"options": ("vfs.nonsense=1",)}, errors.BadConfig, 'unknown option "nonsense"'),
    "an option of no driver": ({"options": ("nodriver.x=1",)}, errors.BadConfig, 'unknown driver "nodriver"'),
    "neither yes nor no": ({"options": ("vfs.ignore_chown_errors=maybe",)}, errors.BadConfig, '"maybe"'),
    "mount options": ({"options": ("vfs.mountopt=nodev",)}, errors.DriverError, "does not support mount options"),
    "a driver that there is not": ({"driver": "nonsense"}, errors.DriverNotSupported, "nonsense"),
    "a driver that cannot be had": ({"driver": "zfs"}, errors.DriverPrerequisites, "zfs"),
    "an additional store that is missing": (
        {"additional_image_stores": ("{folder}/nowhere",)},
        errors.BadConfig,
        "{folder}/nowhere: no such directory",
    ),
    "an additional store that is a file": (
        {"additional_image_stores": ("{folder}/root/storage.lock",)},
        errors.BadConfig,
        "{folder}/root/storage.lock",
    ),
    "an additional store that is this store": (
        {"additional_image_stores": ("{folder}/run/../root",)},
        errors.BadConfig,
        "{folder}/run/../root is the store itself",
    ),
    "a root of images that is this store": (
        {"imagestore": "{folder}/run/../root"},
        errors.BadConfig,
        "imagestore and graphroot are the same directory",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(place: Path, name: str) -> None:
    given, kind, text = SETTINGS[name]

    def here(value: Any) -> Any:
        return tuple(map(here, value)) if isinstance(value, tuple) else value.replace("{folder}", str(place))

    with unchanged(place), pytest.raises(kind) as raised:
        opened(place, **{key: here(value) for key, value in given.items()})
    assert here(text) in str(raised.value)


FILES: dict[str, tuple[bytes, str]] = {
    "binary": (b"\x7fELF\x02\x01\x00\xff\xfe", "toml: line 1: files must be valid UTF-8"),
    "not TOML": (b"[storage\ndriver = 'vfs'\n", "toml: "),
    "a zero byte": (b"[storage]\ndriver = 'v\x00fs'\n", "toml: "),
    "a number for a text": (b"[storage]\ngraphroot = 5\n", 'toml: line 2 (last key "storage.graphroot")'),
    "a text for a list": (b"[storage.options]\nadditionalimagestores = '/x'\n", "additionalimagestores"),
    "a driver that there is not": (b"[storage]\ndriver = 'nonsense'\n", 'storage.driver: unknown driver "nonsense"'),
    "a table that is a text": (b"storage = 'vfs'\n", "expected table but found string"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_storage_conf(place: Path, name: str) -> None:
    written, text = FILES[name]
    path = place / "storage.conf"
    path.write_bytes(written)
    with unchanged(place), pytest.raises(errors.BadConfig) as raised:
        Config.load(env={"CONTAINERS_STORAGE_CONF": str(path), "HOME": str(place)})
    assert str(path) in str(raised.value)
    assert text in str(raised.value)
    with unchanged(place):
        done = command(["layers"], {"CONTAINERS_STORAGE_CONF": str(path)})
    assert done.returncode == 1
    assert done.stdout.startswith("error initializing: ")
    assert str(path) in done.stdout


@pytest.mark.parametrize("name", ["nowhere", "a directory"])
def test_a_storage_conf_that_is_none(place: Path, name: str) -> None:
    path = place / name
    if name == "a directory":
        path.mkdir()
    with unchanged(place), pytest.raises(errors.BadConfig) as raised:
        Config.load(env={"CONTAINERS_STORAGE_CONF": str(path), "HOME": str(place)})
    assert str(path) in str(raised.value)


def test_a_storage_conf_that_this_user_may_not_read(ordinary_user: OrdinaryUser) -> None:
    path = ordinary_user.home / "storage.conf"
    path.write_text("[storage]\n")
    path.chmod(0)
    words = [ordinary_user.python, "-c", "import sys; from layerhold.cli.main import run; run()", "layers"]
    with unchanged(ordinary_user.home):
        done = ordinary_user.as_user(words, {"CONTAINERS_STORAGE_CONF": str(path)}, check=False)
    assert (done.returncode, done.stdout) == (1, f"error initializing: open {path}: permission denied\n")


def command(words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **env}
    return subprocess.run(
        [*stores.ours(), *words], check=False, capture_output=True, text=True, env=environment, timeout=60
    )


# -- additional stores that were copied by halves


class Half:
    """A damaged additional store, in `additional` of a folder that has a store beside it."""

    def __init__(self, folder: Path, driver: str) -> None:
        self.folder = folder
        self.driver = driver
        self.root = folder / "additional"
        self.layers = self.root / f"{driver}-layers"
        self.images = self.root / f"{driver}-images"
        self.home = self.root / ("overlay" if driver == "overlay" else "vfs/dir")

    def opened(self) -> Store:
        return opened(self.folder, self.driver, additional_image_stores=(str(self.root),))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def no_layers(half: Half) -> None:
    for path in half.home.iterdir():
        if len(path.name) == 64:
            shutil.rmtree(path)


def no_link(half: Half) -> None:
    shutil.rmtree(half.home / "l")
    for path in half.home.glob("*/lower*"):
        if path.name == "lower-layers":
            path.unlink()
        else:
            path.write_text("l/" + "A" * 26)


def look_up(store: Store) -> object:
    return store.layers["theirs-layer"]


def run_it(store: Store) -> object:
    return store.containers.create(image="theirs-image")


def name_it(store: Store) -> None:
    store.images["theirs-image"].add_names(["new"])


# What is done to it; whether listing layers and listing images warns; what fails then, with what, and what that names.
DAMAGE: dict[str, tuple[Callable[[Half], object], str, Action, type[Exception], str]] = {
    "no layers.json": (
        lambda half: (half.layers / "layers.json").unlink(),
        "",
        run_it,
        errors.LayerUnknown,
        "layer not",
    ),
    "layers.json cut": (
        lambda half: cut(half.layers / "layers.json"),
        "layers",
        look_up,
        errors.DamagedFile,
        "additional/{driver}-layers/layers.json",
    ),
    "images.json of another form": (
        lambda half: (half.images / "images.json").write_text('{"a": 1}'),
        "images",
        run_it,
        errors.DamagedFile,
        "additional/{driver}-images/images.json",
    ),
    "an image's record of another form": (
        lambda half: (half.images / "images.json").write_text('[{"id": "zz", "layer": 5}]'),
        "images",
        lambda store: store.images["zz"],
        errors.DamagedFile,
        "additional/{driver}-images/images.json",
    ),
    "no directory of the layer": (
        no_layers,
        "",
        run_it,
        errors.StorageError,
        "no such file",
    ),
    "no data of the image": (
        lambda half: next(half.images.glob("*/more")).unlink(),
        "",
        name_it,
        errors.BigDataUnknown,
        '"more" in ',
    ),
    "a lock that is a directory": (
        lambda half: instead(half.layers / "layers.lock", Path.mkdir),
        "layers",
        look_up,
        errors.StorageError,
        "layers.lock is a directory",
    ),
    "a lock that is a FIFO": (
        lambda half: instead(half.layers / "layers.lock", os.mkfifo),
        "layers",
        look_up,
        errors.StorageError,
        "layers.lock is not a regular file",
    ),
    "a lock that is a link": (
        lambda half: instead(half.images / "images.lock", lambda path: path.symlink_to("/etc/passwd")),
        "images",
        run_it,
        errors.StorageError,
        "images.lock is a symbolic link",
    ),
    "lower leads nowhere": (no_link, "", run_it, errors.DriverError, "missing"),
}


@pytest.fixture(params=["vfs", pytest.param("overlay", marks=pytest.mark.root)])
def half(request: pytest.FixtureRequest) -> Iterator[Half]:
    with stores.scratch() as folder:
        half = Half(folder, request.param)
        with layerhold.Store.open(
            graphroot=half.root, runroot=folder / "additional-run", driver=half.driver
        ) as additional:
            fill(additional, "theirs")
            additional.shutdown()
        with opened(folder, half.driver) as own:
            fill(own, "own")
        yield half


@pytest.mark.parametrize("name", DAMAGE)
def test_an_additional_store_that_is_half_copied(half: Half, name: str) -> None:
    damage, kind, action, error, text = DAMAGE[name]
    if name == "lower leads nowhere" and half.driver == "vfs":
        pytest.skip("vfs has no such file")
    half.opened()  # what the first opening makes is there
    damage(half)
    with unchanged(half.folder), half.opened() as store:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layers = [name for layer in store.layers for name in layer.names]
            images = [name for image in store.images for name in image.names]
        assert layers[:2] == ["own-base", "own-layer"]
        assert images[0] == "own-image"
        shown = [str(warning.message) for warning in caught if warning.category is StorePassedOver]
        assert [f"store {half.root} is passed over: " in text for text in shown] == [True] * bool(kind)
        with pytest.raises(error) as raised:
            action(store)
        assert text.replace("{driver}", half.driver) in str(raised.value)
        assert store.layers["own-layer"].names == ("own-layer",)


def test_the_command_says_which_store_it_passes_over(half: Half) -> None:
    cut(half.layers / "layers.json")
    place = stores.Place(half.folder, half.driver, [f"{half.driver}.imagestore={half.root}"])
    done = place.ours("layers")
    assert "own-layer" in done.stdout
    assert [line.split(" is passed over: ")[0] for line in done.stderr.splitlines()] == [f"store {half.root}"]
    assert place.ours("layer", "own-layer").stderr == ""
    assert place.ours("create-layer", "-n", "new", "theirs-layer", check=False).returncode == 1


def test_an_additional_store_that_is_named_twice_is_listed_once(half: Half) -> None:
    twice = (str(half.root), f"{half.root}/../additional")
    with opened(half.folder, half.driver, additional_image_stores=twice) as store:
        assert [layer.names[0] for layer in store.layers] == ["own-base", "own-layer", "theirs-base", "theirs-layer"]


def test_records_of_another_store_that_this_user_may_not_read(ordinary_user: OrdinaryUser) -> None:
    additional = ordinary_user.home / "additional"
    flags = ["-g", f"{ordinary_user.home}/root", "-R", f"{ordinary_user.home}/run", "-s", "vfs"]
    ordinary_user.layerhold("-g", str(additional), *flags[2:], "create-image", "-n", "theirs")
    ordinary_user.layerhold(*flags, "create-image", "-n", "own")
    (additional / "vfs-images/images.json").chmod(0)
    os.chown(additional / "vfs-images/images.json", 0, 0)
    with_it = [*flags, "--storage-opt", f"vfs.imagestore={additional}"]
    done = ordinary_user.layerhold(*with_it, "images")
    assert "\tname: own\n" in done.stdout
    assert done.stderr.startswith(f"store {additional} is passed over: ")
    assert "Permission denied" in done.stderr
    failed = ordinary_user.layerhold(*with_it, "create-container", "theirs", check=False)
    assert failed.returncode == 1
    assert "images.json: permission denied" in failed.stderr
