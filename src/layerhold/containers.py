"""Containers: a writable layer over an image, big data, and two directories for whoever runs it.

    <graphroot>/<driver>-containers/<id>/            big data; `userdata/` is `directory`
    <runroot>/<driver>-containers/<id>/userdata/     `run_directory`

A container appears and goes together with its layer. The intent names the layer, so that a crash in between leaves
neither a layer without its container nor, after the next writer, a container without its layer.
"""

from __future__ import annotations

import os

from layerhold import references
from layerhold.blocks import contextmanager
from layerhold.collection import Collection, Item, distinct, with_data
from layerhold.drivers.base import LayerSpec
from layerhold.errors import ContainerUnknown, DuplicateID, DuplicateName, ImageUnknown
from layerhold.identifiers import check_id, new_id
from layerhold.ids.mappings import IdMappings
from layerhold.images import Image
from layerhold.progress import metering
from layerhold.records import data as big_data
from layerhold.records.intents import Intent, noted
from layerhold.records.model import ContainerRecord, LayerRecord, now
from layerhold.tree.files import disk_usage, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from layerhold.config import Config
    from layerhold.container_bases import Base, Plan
    from layerhold.images import Images
    from layerhold.layers import Layer
    from layerhold.progress import Callback, Meter
    from layerhold.records.view import View
    from layerhold.tables import AnyTables, Views
    from layerhold.userns import AutoUserns


class Containers(Collection["ContainerRecord", "Container"]):
    """All containers of a store. `run_directory` is `<runroot>/<driver>-containers`.

    `volatile_records` is the file for containers that need not outlive a reboot; in a `transient` store all are so.
    """

    kind = "containers"
    noun = "container"
    unknown = ContainerUnknown

    def __init__(
        self,
        tables: AnyTables,
        directory: str,
        run_directory: str,
        images: Images,
        *,
        volatile_records: str,
        transient: bool,
        config: Config,
    ) -> None:
        super().__init__(tables, directory)
        self.volatile_records = volatile_records
        self._transient = transient
        self.run_directory = run_directory
        self.layers = images.layers
        self._images = images
        self._config = config
        self.item = Container

    def create(
        self,
        *,
        image: Image | str | None = None,
        id: str | None = None,
        names: Sequence[str] = (),
        metadata: str = "",
        data: Mapping[str, bytes] | None = None,
        flags: Mapping[str, object] | None = None,
        mount_options: Sequence[str] = (),
        volatile: bool = False,
        mappings: IdMappings | AutoUserns | None = None,
        label_options: Sequence[str] = (),
        storage_options: Mapping[str, str] | None = None,
        progress: Callback | None = None,
    ) -> Container:
        """Make a container and its writable layer over the image's top layer (or over nothing).

        A `volatile` one is mounted without ever being synced, and what says that it is there is not synced either:
        faster, and all of it may be lost when the machine crashes. `mappings` say who in it is who on the host: None,
        as in the image's layers; without ranges, as on the host; AutoUserns, IDs that no other container has. Where
        this takes a copy of the image's files, `plan` says what it costs. `label_options` are those of Podman's
        `--security-opt label=`, for SELinux, `storage_options` those of its `--storage-opt`: what the driver offers for
        single containers, such as a `size`. `progress` is told of the copying; when it ends that, nothing stays of the
        container. A copy that was whole by then is the image's, and stays for the next container with these maps.

        Raises ImageUnknown, LayerUnknown, DuplicateID, DuplicateName, InvalidID, InvalidBigDataName, BadLabel,
        NoAvailableIDs, BadConfig and DriverError (storage options), StorageError (an owner whom the maps do not cover),
        OSError.
        """
        data = data or {}
        for key in data:
            big_data.check_key(key)
        volatile = volatile or self._transient
        wanted = ContainerRecord(
            id=new_id() if id is None else check_id(id),
            names=distinct(names),
            metadata=metadata,
            layer=new_id(),
            created=now(),
            flags=_flags(flags, mount_options, volatile=volatile),
            origin=self.volatile_records if volatile else "",
        )
        wanted = with_data(wanted, data)
        with self._chosen(mappings, _id_of(image)) as maps:
            base = self._base(wanted, _id_of(image), maps, progress)
            wanted = wanted.replace(image=base.image.id if base.image else "", mappings=base.mappings)
            spec = LayerSpec(storage_options=tuple((storage_options or {}).items()))
            return self._published(wanted, base, spec, data=data, label_options=label_options, progress=progress)

    @contextmanager
    def _chosen(self, mappings: IdMappings | AutoUserns | None, image: str | None) -> Iterator[IdMappings | None]:
        """Give the maps for a new container; those that are chosen are held until the end of the block."""
        if mappings is None or isinstance(mappings, IdMappings):
            yield mappings
            return
        from layerhold.userns import chosen

        with chosen(self._config, mappings, self, image) as maps:
            yield maps

    def by_layer(self, layer: Layer | str) -> Container | None:
        """Give the container whose own layer `layer` is. Raises LayerUnknown."""
        with self._tables.reading("layers", "containers") as views:
            id = self.layers.required(views.layers, layer if isinstance(layer, str) else layer.id).id
            found = references.container_of(views.containers, id)
        return None if found is None else Container(self, found)

    def plan(
        self,
        *,
        image: Image | str | None = None,
        mappings: IdMappings | None = None,
        progress: Callback | None = None,
    ) -> Plan:
        """Say what `create` with these maps takes: whether the image's files are copied, how many, how many bytes.

        Raises ImageUnknown, LayerUnknown, StorageError, OSError.
        """
        from layerhold import container_bases

        with self._tables.reading("layers", "images") as views:
            base = container_bases.find(views, _id_of(image), self._given(mappings), self.layers.driver)
            return container_bases.plan(base, self.layers.driver, progress)

    def _given(self, mappings: IdMappings | None) -> IdMappings | None:
        return self.layers.default_mappings if mappings is None else mappings

    def _base(
        self, wanted: ContainerRecord, image: str | None, mappings: IdMappings | None, progress: Callback | None
    ) -> Base:
        """Find what the container stands on; a copy that it needs is made. Raises as `create` does."""
        from layerhold import container_bases

        with self._tables.reading("layers", "images", "containers") as views:
            self._refuse_double(views, wanted)
            base = container_bases.find(views, image, self._given(mappings), self.layers.driver)
        if base.way == container_bases.COPY:
            copy = container_bases.make_copy(self._images, base, progress)
            return base.replace(layer=copy, way=container_bases.KEPT_COPY)
        return base

    def _published(
        self,
        wanted: ContainerRecord,
        base: Base,
        spec: LayerSpec,
        *,
        data: Mapping[str, bytes],
        label_options: Sequence[str],
        progress: Callback | None,
    ) -> Container:
        """Make the container's layer, and save both records."""
        from layerhold import container_bases
        from layerhold.labels import for_container

        layer = LayerRecord(
            id=wanted.layer,
            parent=base.layer.id if base.layer else "",
            created=wanted.created,
            mappings=base.mappings,
            origin=self.layers.files.volatile if wanted.origin else "",
        )
        below = base.layer.mappings if base.layer else None
        own = None if base.way == container_bases.AT_MOUNT else base.mappings
        spec = spec.replace(mappings=own, parent_mappings=below)
        with self.layers.driver.building(layer.id, layer.parent or None, spec, progress) as build:
            build.sync(filled=False)
            with self._tables.writing("layers", "containers", also_reading=("images",)) as editors:
                self._refuse_double(editors, wanted)
                if base.image is not None and base.image.id not in editors.images:
                    raise ImageUnknown(base.image.id, f'locating image with ID "{base.image.id}"')
                others = [other.flags for other in editors.containers]
                labels = for_container(wanted.flags, label_options, others=others)
                wanted = wanted.replace(
                    flags={**wanted.flags, "MountLabel": labels.mount, "ProcessLabel": labels.process}
                )
                with noted(self.directory, Intent(id=wanted.id, layers=(layer.id,))):
                    self.layers.maker.put(editors, layer.replace(mount_label=labels.mount), base.layer, build)
                    for key, value in data.items():
                        big_data.write(os.path.join(self.directory, wanted.id), key, value)
                    editors.containers.put(wanted)
                    editors.containers.save()
        return Container(self, wanted)

    def _find(self, view: View[ContainerRecord], ref: str) -> ContainerRecord | None:
        """Find by ID or name, then by the ID of its layer, then by a unique ID prefix (containers.go: lookup)."""
        exact = view.get(ref) or view.by_name(ref)
        return exact or references.container_of(view, ref) or view.find(ref)

    @staticmethod
    def _refuse_double(views: Views, wanted: ContainerRecord) -> None:
        if wanted.id in views.containers:
            raise DuplicateID(hint=f"container {wanted.id} is there already")
        for name in wanted.names:
            if (holder := views.containers.by_name(name)) is not None:
                raise DuplicateName(
                    f'the container name "{name}" is already in use by {holder.id}. You have to remove that container '
                    "to be able to reuse that name"
                )


class Container(Item["ContainerRecord"]):
    """One container."""

    _collection: Containers

    @property
    def image_id(self) -> str:
        """The ID of the image it was made from, or ""."""
        return self.record.image

    @property
    def layer_id(self) -> str:
        """The ID of its own, writable layer."""
        return self.record.layer

    @property
    def layer(self) -> Layer:
        """Its own, writable layer."""
        return self._collection.layers[self.record.layer]

    @property
    def directory(self) -> Path:
        """A directory for files of whoever runs the container, kept until it is deleted; made if need be."""
        return self._userdata(self._collection.directory)

    @property
    def run_directory(self) -> Path:
        """The same for files that need not outlive a reboot."""
        return self._userdata(self._collection.run_directory)

    def parent_owners(self) -> tuple[list[int], list[int]]:
        """List who owns directories above the mount point and is nobody in the container: users, groups, sorted.

        Raises LayerNotMounted, LayerUnknown.
        """
        return self.layer.parent_owners()

    def size(self, *, progress: Callback | None = None) -> int:
        """Count the bytes that its layer changed, those of its big data, and those in its two directories."""
        record = self.refresh().record
        own = self.layer.diff_size(progress=progress) if record.layer else 0
        homes = (self._collection.directory, self._collection.run_directory)
        used = sum(disk_usage(os.path.join(home, record.id, "userdata")) for home in homes)
        return own + used + sum(record.big_data_sizes.values())

    def relabel(self, path: str | Path, *, shared: bool = False) -> None:
        """Give a file of the host, or a directory with all that is in it, the SELinux label of this container's files.

        So its processes may use it, and those of no other container, as with Podman's `:Z`; `shared`, those of all
        containers, as with `:z`. Links are not followed. Nothing happens where SELinux is off, and for a container
        without labels. Raises BadLabel for what the machine itself needs, such as `/usr` or a home; OSError.
        """
        from layerhold import labels
        from layerhold.tree.relabel import relabel

        label = labels.flag_labels(self.record.flags).mount
        relabel(os.fspath(path), labels.shared(label) if shared and label else label)

    def delete(self, *, progress: Callback | None = None) -> None:
        """Remove the container, its layer, its data and its directories. Raises ContainerUnknown, OSError.

        `progress` as in `Layer.delete`.
        """
        with metering(progress, "removing") as meter:
            self._delete(meter)

    def _delete(self, meter: Meter | None) -> None:
        owner = self._collection
        files = owner.layers.files
        with files.bins(meter) as bins, owner._tables.writing("layers", "containers", "mounts") as editors:
            record = self._now(editors.containers)
            with noted(owner.directory, Intent(id=record.id, layers=(record.layer,))):
                editors.containers.remove(record.id)
                editors.containers.save()
                files.remove(editors.layers, [record.layer], bins)
                editors.mounts.remove(record.layer)
                for home in (owner.directory, owner.run_directory):
                    remove_tree(os.path.join(home, record.id))


def _id_of(image: Image | str | None) -> str | None:
    return image.id if isinstance(image, Image) else image


def _flags(flags: Mapping[str, object] | None, mount_options: Sequence[str], *, volatile: bool) -> dict[str, object]:
    """The flags that Go writes for every container; its labels are empty where SELinux is not in use."""
    made: dict[str, object] = {"MountLabel": "", "ProcessLabel": "", **(flags or {})}
    if mount_options:
        made["MountOpts"] = list(mount_options)
    if volatile:
        made["Volatile"] = True
    return made
