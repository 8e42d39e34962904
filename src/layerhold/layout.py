"""Where the parts of a store are: its directories, its record files, and the locks of these.

    <graphroot>/<driver>-layers/       layers.lock, layers.json, volatile-layers.json
    <graphroot>/<driver>-images/       images.lock, images.json
    <graphroot>/<driver>-containers/   containers.lock, containers.json, volatile-containers.json
    <runroot>/<driver>-layers/         mountpoints.lock, mountpoints.json

A store with an *image store* has images, and layers that are not written to, in a second root; new images go there, and
those that the graph root has are still its own. A *transient* store keeps the records of containers, and of their
layers, in the run root, so that they are gone after a reboot. *Additional* stores are ordinary graph roots of others,
which are only read: nothing is made in them, and lock files are taken only where there are some.
"""

from __future__ import annotations

import os

from layerhold import lock
from layerhold.errors import BadConfig
from layerhold.lock import BothLocks, LockFile, ReadersLock
from layerhold.records.model import ContainerRecord, ImageRecord, LayerRecord, MountRecord
from layerhold.records.table import Table
from layerhold.tables import Tables
from layerhold.tree.files import make_dirs
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerhold.config import Config
    from layerhold.layer_files import LayerFiles


class Layout(Value):
    """The places of a store whose driver is called `driver`. `imagestore` is "" where images have no root of theirs."""

    driver: str
    graphroot: str
    runroot: str
    imagestore: str = ""
    transient: bool = False
    additional: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, driver: str) -> Layout:
        """Give the places that a configuration names."""
        return cls(
            driver=driver,
            graphroot=config.graphroot,
            runroot=config.runroot,
            imagestore=config.imagestore,
            transient=config.transient_store,
            additional=_each_once(config.additional_image_stores),
        )

    def graph(self, kind: str) -> str:
        """Name the directory of a kind of things in the graph root."""
        return f"{self.graphroot}/{self.driver}-{kind}"

    def run(self, kind: str) -> str:
        """Name the directory of a kind of things in the run root."""
        return f"{self.runroot}/{self.driver}-{kind}"

    def image(self, kind: str) -> str:
        """Name the directory of a kind of things where new images go."""
        return f"{self.imagestore or self.graphroot}/{self.driver}-{kind}"

    @property
    def image_homes(self) -> tuple[str, ...]:
        """The directories of images that are the store's own, that of new ones first."""
        return tuple(dict.fromkeys((self.image("images"), self.graph("images"))))

    @property
    def homes_of_users(self) -> tuple[str, str]:
        """Where directories for files of whoever uses an image are: to be kept, and only until a reboot."""
        return self.graph("images"), self.run("images")

    @property
    def layers_of_images(self) -> str:
        """The file for records of layers that are not written to; "" if that is the one of all."""
        return f"{self.image('layers')}/layers.json" if self.imagestore else ""

    @property
    def volatile_layers(self) -> str:
        """The file for records of layers that need not outlive a reboot."""
        return f"{self.run('layers') if self.transient else self.graph('layers')}/volatile-layers.json"

    @property
    def volatile_containers(self) -> str:
        """The file for records of containers that need not outlive a reboot."""
        return f"{self.run('containers') if self.transient else self.graph('containers')}/volatile-containers.json"

    def make_directories(self) -> None:
        """Make what is missing, but for the homes of the driver. Raises OSError."""
        places = [self.graph(kind) for kind in ("layers", "images", "containers")]
        places += [self.run(kind) for kind in ("layers", "containers", "locks")]
        if self.imagestore:
            places += [self.image("layers"), self.image("images")]
        for place in places:
            make_dirs(place)

    def open_tables(self, files: LayerFiles, first_write: Callable[[], None]) -> Tables:
        """Open all tables; lock files that are missing are made. Raises OSError."""
        layer_records = (f"{self.graph('layers')}/layers.json", self.layers_of_images, self.volatile_layers)
        containers = self.run("containers") if self.transient else self.graph("containers")
        return Tables(
            layers=Table(LayerRecord, self._layers_lock(), list(filter(None, layer_records)), repair=files.repair),
            images=Table(ImageRecord, self._images_lock(), [f"{home}/images.json" for home in self.image_homes]),
            containers=Table(
                ContainerRecord,
                self._made(f"{containers}/containers.lock", lock.CONTAINERS),
                [f"{self.graph('containers')}/containers.json", self.volatile_containers],
            ),
            mounts=Table(
                MountRecord,
                self._made(f"{self.run('layers')}/mountpoints.lock", lock.MOUNTS),
                [f"{self.run('layers')}/mountpoints.json"],
            ),
            first_write=first_write,
            additional_layers=tuple(self._layers_of(root) for root in self.additional),
            additional_images=tuple(self._images_of(root) for root in self.additional),
        )

    def open_tables_to_read(self) -> Tables:
        """Open the tables of a store in which nothing is changed: lock files that are missing are not made.

        Records of images that lie in a root of their own, the image store, come behind those of the graph root.
        """
        images = [self.imagestore] if self.imagestore else []
        containers = self.graph("containers")
        return Tables(
            layers=self._layers_of(self.graphroot, lock.LAYERS),
            images=self._images_of(self.graphroot, lock.IMAGES),
            containers=Table(
                ContainerRecord,
                ReadersLock(f"{containers}/containers.lock", rank=lock.CONTAINERS, store=self.graphroot),
                [f"{containers}/containers.json", f"{containers}/volatile-containers.json"],
                read_only=True,
            ),
            mounts=Table(MountRecord, ReadersLock("", rank=lock.MOUNTS, store=self.graphroot), [], read_only=True),
            first_write=_nothing,
            additional_layers=tuple(self._layers_of(root) for root in images),
            additional_images=tuple(self._images_of(root) for root in images),
        )

    def _layers_lock(self) -> LockFile | BothLocks:
        own = self._made(f"{self.graph('layers')}/layers.lock", lock.LAYERS)
        if not self.imagestore:
            return own
        return BothLocks(own, self._made(f"{self.image('layers')}/layers.lock", lock.IMAGESTORE_LAYERS))

    def _images_lock(self) -> LockFile | BothLocks:
        own = self._made(f"{self.image('images')}/images.lock", lock.IMAGES)
        if not self.imagestore:
            return own
        return BothLocks(own, self._made(f"{self.graph('images')}/images.lock", lock.GRAPHROOT_IMAGES))

    def _made(self, path: str, rank: int) -> LockFile:
        lock_file = LockFile(path, rank=rank, store=self.graphroot)
        lock_file.make()
        return lock_file

    def _layers_of(self, root: str, rank: int = lock.ADDITIONAL_LAYERS) -> Table[LayerRecord]:
        home = f"{root}/{self.driver}-layers"
        readers = ReadersLock(f"{home}/layers.lock", rank=rank, store=self.graphroot)
        files = [f"{home}/layers.json", f"{home}/volatile-layers.json"]
        return Table(LayerRecord, readers, files, read_only=True)

    def _images_of(self, root: str, rank: int = lock.ADDITIONAL_IMAGES) -> Table[ImageRecord]:
        home = f"{root}/{self.driver}-images"
        readers = ReadersLock(f"{home}/images.lock", rank=rank, store=self.graphroot)
        return Table(ImageRecord, readers, [f"{home}/images.json"], read_only=True)


def check_roots(config: Config) -> None:
    """See that the additional stores are there, and that no two roots are one. Raises BadConfig."""
    if config.imagestore and os.path.realpath(config.imagestore) == os.path.realpath(config.graphroot):
        raise BadConfig("imagestore and graphroot are the same directory: " + config.graphroot)
    for root in config.additional_image_stores:
        if not os.path.isdir(root):
            raise BadConfig(
                f"can't stat imageStore dir {root}: no such directory",
                hint="make it, or take it out of additionalimagestores (storage.conf)",
            )
        if any(os.path.realpath(root) == os.path.realpath(own) for own in (config.graphroot, config.imagestore) if own):
            raise BadConfig(f"additional store {root} is the store itself")


def _nothing() -> None:
    return


def _each_once(roots: Sequence[str]) -> tuple[str, ...]:
    """Drop roots that are an earlier one by another name."""
    known: dict[str, str] = {}
    for root in roots:
        known.setdefault(os.path.realpath(root), root)
    return tuple(known.values())
