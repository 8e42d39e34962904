"""A store at work, in an order that a seed decides: what was done, and what the store then showed.

Every operation is noted with the lengths of the disk's log before it began and when it had returned, and with what the
store shows after each of its steps: after a crash, the operations that had returned are there, and of the one that was
going on so many steps as the dice would have it. Only a batch has more steps than one.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import layerhold
from tests import inputs
from tests.crash.recorded_disk import RecordedDisk


class LayerSeen(NamedTuple):
    """What a store shows of a layer. Where it is said what may be seen, a `content` of None may be any."""

    names: tuple[str, ...]
    metadata: str
    parent: str
    digest: str
    size: int | None
    content: str | None
    data: tuple[tuple[str, str], ...]


class ImageSeen(NamedTuple):
    """What it shows of an image."""

    names: tuple[str, ...]
    metadata: str
    layer: str
    data: tuple[tuple[str, str], ...]


class ContainerSeen(NamedTuple):
    """What it shows of a container."""

    names: tuple[str, ...]
    metadata: str
    image: str
    layer: str
    parent: str
    data: tuple[tuple[str, str], ...]


State = dict[str, LayerSeen | ImageSeen | ContainerSeen]  # by kind and ID
_MANY = 8  # so many layers are enough: more go than come
_fsync = os.fsync  # also where the store has to do without


class Done(NamedTuple):
    """One operation; `states` are those after each of its steps, `loose` the layers that came or went in a batch."""

    what: str
    began: int
    ended: int
    states: tuple[State, ...]
    loose: frozenset[str]


def observe(store: layerhold.Store) -> State:
    """Give all that a store shows, the contents of layers and data files as digests. Raises for what is not whole."""
    state: State = {}
    owned = set()
    for box in store.containers:
        owned.add(box.layer_id)
        layer = store.layers[box.layer_id]
        state[f"container {box.id}"] = ContainerSeen(
            box.names, box.metadata, box.image_id, layer.id, layer.parent_id, _data(box)
        )
    for image in store.images:
        state[f"image {image.id}"] = ImageSeen(image.names, image.metadata, image.layer_id, _data(image))
    for layer in store.layers:
        if layer.id not in owned:
            with layer.diff(compression=0) as stream:
                content = hashlib.sha256(stream.read()).hexdigest()
            about = (layer.names, layer.metadata, layer.parent_id, layer.record.diff_digest, layer.size)
            state[f"layer {layer.id}"] = LayerSeen(*about, content, _data(layer))
    return state


def differences(seen: State, wanted: State) -> list[str]:
    """Say what differs between two states, a line each."""
    found = []
    for key in sorted(seen.keys() | wanted.keys()):
        one, other = seen.get(key), wanted.get(key)
        if isinstance(one, LayerSeen) and isinstance(other, LayerSeen) and other.content is None:
            one = one._replace(content=None)
        if one != other:
            found.append(f"{key} is {one}, and should be {other}")
    return found


def _data(item: layerhold.Layer | layerhold.Image | layerhold.Container) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, hashlib.sha256(item.data[key]).hexdigest()) for key in item.data))


def layer_tar(dice: random.Random) -> bytes:
    """A layer with a few files, some of them of many blocks."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(inputs.entry(f"dir{dice.randrange(5)}", tarfile.DIRTYPE, 0o755))
        for number in range(dice.choice((1, 3, 12))):
            data = dice.randbytes(dice.choice((0, 10, 5000, 30000)))
            tar.addfile(inputs.entry(f"file{number}", size=len(data)), io.BytesIO(data))
        tar.addfile(inputs.entry("link", tarfile.SYMTYPE, 0o777, linkname="file0"))
    return out.getvalue()


class Work:
    """What is done to a store on a disk that is recorded."""

    def __init__(self, open_store: Callable[[], layerhold.Store], disk: RecordedDisk, seed: int) -> None:
        self._open = open_store
        self._disk = disk
        self._dice = random.Random(seed)
        self._store: layerhold.Store
        self._steps: list[State] = []
        self._loose: set[str] = set()
        self._names = 0

    def run(self, count: int) -> list[Done]:
        """Make a store, and do so many operations in it."""
        done = [self._note("open", self._begin)]
        with _others_at_work(self._disk.mount_point, self._dice.randrange(1 << 30)) as others:
            while len(done) < count:
                operation = self._choose()
                others(self._dice.random() < 0.5)
                done.append(self._note(operation.__name__.strip("_"), lambda do=operation: do(self._store)))  # type: ignore[misc]
        return done

    def _note(self, what: str, operation: Callable[[], None]) -> Done:
        self._steps, self._loose = [], set()
        began = self._disk.position()
        operation()
        ended = self._disk.position()
        return Done(what, began, ended, (*self._steps, observe(self._store)), frozenset(self._loose))

    def _begin(self) -> None:
        self._store = self._open()

    def _choose(self) -> Callable[[layerhold.Store], None]:
        """Choose an operation that there is something for."""
        store = self._store
        going = [
            *([self._delete_layer] if self._needless(store) else []),
            *([self._delete_image, self._delete_image_only] if self._unused_images() else []),
            *([self._delete_container] if len(store.containers) else []),
        ]
        if len(store.layers) > _MANY and going:
            return self._dice.choice(going)
        return self._dice.choice(
            [
                *going,
                *(self._empty_layer, self._layer, self._layer, self._image, self._batch, self._batch),
                *([self._apply, self._apply] if self._empty(store) else []),
                *([self._container] if len(store.images) else []),
                *([self._set_data, self._rename, self._describe] if self._items() else []),
            ]
        )

    # -- what can be done, also in a batch

    def _empty_layer(self, store: layerhold.Store) -> None:
        self._loose.add(store.layers.create(self._parent(store), names=[self._name()]).id)

    def _layer(self, store: layerhold.Store) -> None:
        diff, writable = io.BytesIO(layer_tar(self._dice)), self._dice.random() < 0.5
        layer = store.layers.create(self._parent(store), names=[self._name()], diff=diff, writable=writable)
        self._loose.add(layer.id)

    def _delete_layer(self, store: layerhold.Store) -> None:
        layer = self._dice.choice(self._needless(store))
        self._loose.add(layer.id)
        layer.delete()

    def _image(self, store: layerhold.Store) -> None:
        data = {key: self._bytes() for key in ("manifest", "sha256:" + "0" * 64, "key")}
        store.images.create(layer=self._parent(store), names=[self._name(), self._name()], data=data)

    def _batch(self, store: layerhold.Store) -> None:
        with store.writing() as batch:
            for _ in range(self._dice.randint(2, 5)):
                choices = [self._empty_layer, self._layer, self._image, *([self._delete_layer] * 2)]
                if not self._needless(batch):
                    choices = choices[:3]
                self._dice.choice(choices)(batch)
                self._steps.append(observe(batch))
            loose = self._loose
        self._loose = loose

    # -- what is done by itself only

    def _apply(self, store: layerhold.Store) -> None:
        layer = self._dice.choice(self._empty(store))
        before = observe(store)
        seen = before[f"layer {layer.id}"]
        assert isinstance(seen, LayerSeen)
        self._steps.append({**before, f"layer {layer.id}": seen._replace(content=None)})
        layer.apply(io.BytesIO(layer_tar(self._dice)))

    def _delete_image(self, _store: layerhold.Store) -> None:
        self._dice.choice(self._unused_images()).delete()

    def _delete_image_only(self, _store: layerhold.Store) -> None:
        self._dice.choice(self._unused_images()).delete(with_layers=False)

    def _container(self, store: layerhold.Store) -> None:
        image = self._dice.choice(list(store.images))
        store.containers.create(image=image, names=[self._name()], metadata="new", data={"config": self._bytes()})

    def _delete_container(self, store: layerhold.Store) -> None:
        self._dice.choice(list(store.containers)).delete()

    def _set_data(self, _store: layerhold.Store) -> None:
        self._dice.choice(self._items()).data.set(self._dice.choice(("key", "other key")), self._bytes())

    def _rename(self, _store: layerhold.Store) -> None:
        items = self._items()
        one = self._dice.choice(items)
        same = [item for item in items if type(item) is type(one)]
        taken = self._dice.choice(same).names[:1]
        self._dice.choice((one.set_names, one.add_names))([*taken, self._name()])

    def _describe(self, _store: layerhold.Store) -> None:
        self._dice.choice(self._items()).set_metadata(self._bytes().hex())

    # -- what there is

    def _items(self) -> list[layerhold.Layer | layerhold.Image | layerhold.Container]:
        return [*self._plain(self._store), *self._store.images, *self._store.containers]

    def _plain(self, store: layerhold.Store) -> list[layerhold.Layer]:
        """The layers that no container owns."""
        owned = {box.layer_id for box in store.containers}
        return [layer for layer in store.layers if layer.id not in owned]

    def _needless(self, store: layerhold.Store) -> list[layerhold.Layer]:
        needed = {layer.parent_id for layer in store.layers} | {image.layer_id for image in store.images}
        return [layer for layer in self._plain(store) if layer.id not in needed]

    def _empty(self, store: layerhold.Store) -> list[layerhold.Layer]:
        return [layer for layer in self._needless(store) if layer.size is None]

    def _unused_images(self) -> list[layerhold.Image]:
        used = {box.image_id for box in self._store.containers}
        return [image for image in self._store.images if image.id not in used]

    def _parent(self, store: layerhold.Store) -> layerhold.Layer | None:
        return self._dice.choice([None, *self._plain(store)])

    def _name(self) -> str:
        self._names += 1
        return f"localhost/n{self._names}:1"

    def _bytes(self) -> bytes:
        return self._dice.randbytes(self._dice.choice((1, 300, 9000)))


@contextmanager
def _others_at_work(folder: Path, seed: int) -> Iterator[Callable[[bool], None]]:
    """Have another program write and sync a file on the same disk now and then, while it is told to.

    With every such sync the file system may write down what others have done halfway.
    """
    dice = random.Random(seed)
    at_work, over = threading.Event(), threading.Event()

    def work() -> None:
        fd = os.open(folder / "of-others", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not over.is_set():
                if at_work.wait(0.05):
                    os.pwrite(fd, dice.randbytes(100), dice.randrange(20000))
                    _fsync(fd)
                    over.wait(dice.uniform(0, 0.01))
        finally:
            os.close(fd)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda wanted: at_work.set() if wanted else at_work.clear()
    finally:
        over.set()
        thread.join()
