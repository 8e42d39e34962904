"""A store: opened, looked into, changed.

`Store.open` makes what is missing of

    <graphroot>/storage.lock, the driver's home, and what layout.py names

chooses the driver under the storage lock, and clears up what a crash left. The collections do the work; what is here
is what concerns several of them.
"""

from __future__ import annotations

import os

from layerhold import lock, references
from layerhold.blocks import contextmanager
from layerhold.config import Config
from layerhold.containers import Containers
from layerhold.errors import AmbiguousName, LayerUnknown, LayerUsedByContainer, NotFound
from layerhold.images import Images
from layerhold.layer_files import LayerFiles
from layerhold.layers import Layer, Layers
from layerhold.layout import Layout, check_roots
from layerhold.lock import LockFile
from layerhold.progress import metering
from layerhold.records.intents import anything_left
from layerhold.tables import HeldTables
from layerhold.tree.files import make_dirs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from layerhold.containers import Container
    from layerhold.damage import Report
    from layerhold.dedup import Deduplicated
    from layerhold.garbage import Garbage
    from layerhold.ids.mappings import IdMappings
    from layerhold.images import Image
    from layerhold.mounts import Mount
    from layerhold.progress import Callback
    from layerhold.records.model import MountRecord
    from layerhold.repair import Removal
    from layerhold.tables import AnyTables

VERSION = "0.1.0"


class Store:
    """One store, shared with whatever other program works on it.

    `layers`, `images` and `containers` are its collections; `config` is what it was opened with, `driver` where the
    files of its layers are.
    """

    def __init__(
        self, config: Config, layout: Layout, files: LayerFiles, tables: AnyTables, storage_lock: LockFile
    ) -> None:
        self.config = config
        self._layout = layout
        self.driver = files.driver
        self._files = files
        self._tables = tables
        self._storage_lock = storage_lock
        self.layers = Layers(tables, files, storage_lock, default_mappings=_default_mappings(config))
        self.images = Images(tables, layout.image("images"), self.layers, user_homes=layout.homes_of_users)
        self.containers = Containers(
            tables,
            layout.graph("containers"),
            layout.run("containers"),
            self.images,
            volatile_records=layout.volatile_containers,
            transient=layout.transient,
            config=config,
        )

    @classmethod
    def open(
        cls,
        config: Config | None = None,
        *,
        graphroot: str | os.PathLike[str] | None = None,
        runroot: str | os.PathLike[str] | None = None,
        driver: str | None = None,
        options: Sequence[str] | None = None,
    ) -> Store:
        """Open the store of `config`, or of these roots; with no argument, the one that Podman uses for this user.

        What is missing is made. Raises BadConfig, DriverError, DamagedFile, NotPermitted, OSError.
        """
        if config is None:
            config = Config.load(graphroot=graphroot, runroot=runroot, driver=driver, options=options)
        check_roots(config)
        make_dirs(config.runroot)
        make_dirs(config.graphroot)
        path = os.path.join(config.graphroot, "storage.lock")
        storage_lock = LockFile(path, rank=lock.STORAGE, store=config.graphroot)
        with storage_lock.exclusive():
            from layerhold.drivers.choose import Place, open_driver

            found = open_driver(
                config.driver or None,
                Place(
                    graphroot=config.graphroot,
                    runroot=config.runroot,
                    imagestore=config.imagestore,
                    additional=config.additional_image_stores,
                    idmapped=config.idmapped_mounts,
                ),
                options=config.options,
                priority=config.driver_priority,
            )
            layout = Layout.of(config, found.name)
            layout.make_directories()
        files = LayerFiles(
            found, layout.graph("layers"), of_images=layout.layers_of_images, volatile=layout.volatile_layers
        )
        files.sweep()
        tables = layout.open_tables(files, _Once(found.sweep))
        store = cls(config, layout, files, tables, storage_lock)
        homes = (*layout.image_homes, store.containers.directory)
        if not found.features.read_only and (any(map(anything_left, homes)) or files.notes_left()):
            from layerhold import recovery

            recovery.clear_up(tables, files, layout, store.containers)
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing is held between two calls, so nothing is to be given back."""

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """Hold the shared locks of all tables; the store that the block gets shows one moment."""
        with (
            self._tables.reading("layers", "images", "containers", "mounts") as views,
            HeldTables(self._tables, views) as held,
        ):
            yield self._over(held)

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """Hold the exclusive locks of all tables; what the block does through its store is one batch.

        Layers that it makes or deletes are saved together when the block ends, or before something else of it is saved.
        If it ends by an error, what was finished in it stays. Raises OSError; then what was not saved has not happened.
        In such a block, another one is part of it.
        """
        from layerhold.layer_batches import LayerBatch

        if self._tables.batch is not None:
            yield self
            return
        with (
            self._files.bins() as bins,
            self._tables.writing("layers", "images", "containers", "mounts") as editors,
            LayerBatch(self._files, editors, bins) as batch,
            HeldTables(self._tables, editors, editors, batch) as held,
        ):
            yield self._over(held)

    def _over(self, tables: AnyTables) -> Store:
        return Store(self.config, self._layout, self._files, tables, self._storage_lock)

    def __getitem__(self, ref: str) -> Layer | Image | Container:
        """Give the layer, image or container `ref`. Raises NotFound, AmbiguousName if items of two kinds match."""
        found = self.find_all(ref)
        if len(found) > 1:
            kinds = ", ".join(type(item).__name__.lower() for item in found)
            raise AmbiguousName(f'"{ref}" ({kinds})')
        if not found:
            raise NotFound(ref)
        return found[0]

    def __contains__(self, ref: object) -> bool:
        return isinstance(ref, str) and bool(self.find_all(ref))

    def find_all(self, ref: str) -> list[Layer | Image | Container]:
        """Give every item that `ref` can mean: a layer, then an image, then a container."""
        found = (self.layers.get(ref), self.images.get(ref), self.containers.get(ref))
        return [item for item in found if item is not None]

    def mount(self, ref: str, *, label: str = "", options: Sequence[str] = ()) -> Mount:
        """Mount a container's layer, or a layer. Raises LayerUnknown, DriverError, OSError."""
        container = self.containers.get(ref)
        if container is None:
            return self._mountable(ref).mount(label=label, options=options)
        flags = container.record.flags
        recorded = flags.get("MountOpts") or ()
        own = [option for option in recorded if isinstance(option, str)] if isinstance(recorded, list | tuple) else []
        label = label or str(flags.get("MountLabel") or "")
        return container.layer.mount(
            label=label,
            options=options or own,
            volatile=flags.get("Volatile") is True and not self.config.disable_volatile,
            mappings=container.record.mappings,
        )

    def unmount(self, ref: str, *, force: bool = False) -> bool:
        """Undo one mount (or all, with `force`) of a container or layer; tell whether it is still mounted."""
        return self._mounted(ref).unmount(force=force)

    def mounted(self, ref: str) -> int:
        """Count the uses of the mount of a container or layer."""
        return self._mounted(ref).mount_count

    def delete(self, ref: str, *, progress: Callback | None = None) -> None:
        """Remove a container, an image (its layers stay) or a layer, if nobody needs it. Raises NotFound, InUse.

        `progress` as in `Layer.delete`.
        """
        if (container := self.containers.own(ref)) is not None:
            container.delete(progress=progress)
        elif (image := self.images.own(ref)) is not None:
            image.delete(with_layers=False, progress=progress)
        elif (layer := self.layers.own(ref)) is not None:
            layer.delete(progress=progress)
        else:
            raise LayerUnknown(ref)

    def digest_lock(self, digest: str) -> LockFile:
        """Give the lock of whoever pulls the blob with this digest: `with lock.exclusive(): ...`. Raises InvalidDigest.

        It is `<runroot>/<driver>-locks/<digest>`, as for the Go programs; what it protects is the callers' business.
        """
        from layerhold.digests import Digest

        path = os.path.join(self._layout.run("locks"), Digest.parse(digest))
        return LockFile(path, rank=lock.DIGEST, store=self.config.graphroot)

    def mounts(self) -> list[MountRecord]:
        """Give what is mounted, where, and how often it is in use."""
        with self._tables.reading("layers", "mounts") as views:
            return list(views.mounts)

    def status(self) -> list[tuple[str, str]]:
        """Say where the store is and what its driver can do: pairs of key and value."""
        return [
            ("Root", self.config.graphroot),
            ("Run Root", self.config.runroot),
            ("Driver Name", self.driver.name),
            ("Driver Options", f"[{' '.join(self.config.driver_options_shown or self.config.options)}]"),
            *self.driver.describe(),
        ]

    def version(self) -> list[tuple[str, str]]:
        """Say which version of the library this is."""
        return [("Version", VERSION)]

    def wipe(self, *, progress: Callback | None = None) -> None:
        """Remove all containers, then all images, then all layers, and what else there is without a record.

        `progress` is told how many files are deleted. What it raises ends the wiping between two items, and what is
        left of the files of one goes with the next opening of the store.
        """
        from layerhold import garbage

        with metering(progress, "removing") as meter:
            for container in self.containers:
                container._delete(meter)
            for image in self.images:
                if not image.read_only:
                    image._delete(meter, with_layers=False)
            with (
                self.layers.files.bins(meter) as bins,
                self._tables.writing("layers", "mounts", also_reading=("images", "containers")) as editors,
            ):
                going = references.unneeded(editors, [layer.id for layer in editors.layers.own])
                self.layers.files.remove(editors.layers, going, bins)
                for id in going:
                    editors.mounts.remove(id)
            garbage.collect(self, meter)

    def check(
        self,
        *,
        layer_digests: bool = True,
        layer_contents: bool = True,
        layer_data: bool = True,
        image_data: bool = True,
        container_data: bool = True,
        mountable: bool = True,
        unreferenced_for: float = 86400.0,
        progress: Callback | None = None,
    ) -> Report:
        """Look for damage, and change nothing. `unreferenced_for` is how long nothing may need a layer, in seconds.

        `layer_contents` compares the files' owners, modes and times with what came in; it takes `layer_digests` and
        `mountable`. `progress` is told how much of the layers is read. Raises DamagedFile (records that cannot be
        read), OSError.
        """
        from layerhold.check import check
        from layerhold.damage import Scope

        scope = Scope(
            layer_digests=layer_digests,
            layer_contents=layer_contents,
            layer_data=layer_data,
            image_data=image_data,
            container_data=container_data,
            mountable=mountable,
            unreferenced_for=unreferenced_for,
        )
        return check(self, scope, progress)

    def repair(
        self, report: Report, *, containers: bool = False, dry_run: bool = False, progress: Callback | None = None
    ) -> list[Removal]:
        """Remove what `report` calls damaged, its containers too if `containers`; with `dry_run` only say what goes.

        What something else needs, or was made anew since the report, stays; the removals say so. `progress` as in
        `wipe`. Raises OSError.
        """
        from layerhold import repair

        planned = repair.plan(self, report, containers=containers)
        if dry_run:
            return planned
        with metering(progress, "removing") as meter:
            return repair.carry_out(self, planned, meter)

    def dedup(self, *, method: str = "crc", progress: Callback | None = None) -> Deduplicated:
        """Let equal files of images share their blocks, where the file system can; nothing that is read changes.

        `method` chooses what is compared: files of the same "size", or of the same size and "crc" or "sha256".
        `progress` is told how many files are looked at, then how many of those that might be equal; when it ends that,
        what is shared stays so. Raises ValueError for another method, OSError.
        """
        from layerhold.dedup import dedup

        return dedup(self, method, progress)

    def collect_garbage(self, *, dry_run: bool = False, progress: Callback | None = None) -> list[Garbage]:
        """Remove files that no record has, and say what they were; with `dry_run` only say so. Raises OSError.

        `progress` as in `Layer.delete`.
        """
        from layerhold import garbage

        if dry_run:
            return garbage.find(self)
        with metering(progress, "removing") as meter:
            return garbage.collect(self, meter)

    def shutdown(self, *, force: bool = False) -> None:
        """Undo what was set up for the driver's whole home.

        Layers that are mounted are an error (LayerUsedByContainer, whose `by` has their IDs); with `force` they are
        unmounted first, and the error tells of it all the same, as in the Go library.
        """
        with self._storage_lock.exclusive() as held:
            with self._tables.writing("layers", "mounts") as editors:
                mounted = tuple(mount.id for mount in editors.mounts)
                if mounted and force:
                    for id in mounted:
                        self.driver.unmount(id)
                        editors.mounts.remove(id)
                        editors.mounts.save()  # the next one may be busy
            if not mounted or force:
                held.record_write()
                self.driver.shutdown()
        if mounted:
            raise LayerUsedByContainer("a layer is mounted", by=mounted)

    def _mountable(self, ref: str) -> Layer:
        container = self.containers.get(ref)
        return container.layer if container else self.layers[ref]

    def _mounted(self, ref: str) -> Layer:
        """Give what can be mounted; another store's layer only if it is."""
        layer = self._mountable(ref)
        if layer.read_only and not layer.mount_count:
            raise LayerUnknown(ref)
        return layer


def _default_mappings(config: Config) -> IdMappings | None:
    """Give the maps of layers that are given none: `remap-uids`, `remap-user` and the like of storage.conf."""
    if not (config.remap_uids or config.remap_gids or config.remap_user or config.remap_group):
        return None
    from layerhold.ids.options import parse_mappings

    uids, gids = (text.split(",") if text else () for text in (config.remap_uids, config.remap_gids))
    return parse_mappings(uids, gids, config.remap_user, config.remap_group)


class _Once:
    """Call something the first time only."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._done = False

    def __call__(self) -> None:
        if not self._done:
            self._done = True
            self._call()
