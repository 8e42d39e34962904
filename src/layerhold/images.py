"""Images: a name and big data (manifest, configuration, signatures) over a top layer.

The data files of a new image are written before the one save of its record, since an image without its manifest makes
`podman images` fail for the whole store. What is removed goes record first, then layers, then data. Both are noted as
an intent, so that a crash in between is cleared up by the next writer (records/intents.py).
"""

from __future__ import annotations

import os

from layerhold import references
from layerhold.collection import Collection, Item, distinct, with_data
from layerhold.errors import BigDataUnknown, DuplicateID, DuplicateName, ImageUnknown, InvalidDigest, LayerUnknown
from layerhold.identifiers import check_id, new_id
from layerhold.layers import Layer
from layerhold.progress import metering
from layerhold.records import data as big_data
from layerhold.records.intents import Intent, noted
from layerhold.records.model import ImageRecord, now
from layerhold.tree.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from layerhold.errors import NotFound
    from layerhold.layers import Layers
    from layerhold.mounts import Mount
    from layerhold.progress import Callback, Meter
    from layerhold.tables import AnyTables, Views


class Images(Collection["ImageRecord", "Image"]):
    """All images of a store.

    `directory` is where new ones go. A store whose images lie in a root of their own may have more in its graph root:
    a record's `origin` tells. `user_homes` is where the directories for files of whoever uses an image are: below the
    graph root, then below the run root, wherever the image itself is, as in the Go library.
    """

    kind = "images"
    noun = "image"
    unknown = ImageUnknown

    def __init__(self, tables: AnyTables, directory: str, layers: Layers, *, user_homes: tuple[str, str]) -> None:
        super().__init__(tables, directory)
        self.user_homes = user_homes
        self.layers = layers
        self.item = Image

    def create(
        self,
        *,
        layer: Layer | str | None = None,
        id: str | None = None,
        names: Sequence[str] = (),
        metadata: str = "",
        digest: str = "",
        data: Mapping[str, bytes] | None = None,
        created: str | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> Image:
        """Make an image with top layer `layer` and the big data `data`.

        What Podman lists and runs has the hex of its configuration's digest as ID, that digest (with `sha256:`) as the
        key of the configuration, and `manifest` as the key of its OCI manifest. What is not said of an image that an
        additional store has under this ID is taken over from there. Raises LayerUnknown, DuplicateID, DuplicateName,
        InvalidID, InvalidDigest, InvalidBigDataName, OSError.
        """
        data = data or {}
        for key in data:
            big_data.check_key(key)
        wanted = ImageRecord(
            id=new_id() if id is None else check_id(id),
            digest=str(_valid(digest)),
            names=distinct(names),
            metadata=metadata,
            created=created or "",
            flags=dict(flags or {}),
        )
        wanted = with_data(wanted, data)
        with self._tables.writing("images", also_reading=("layers",)) as editors:
            wanted = wanted.replace(layer=self._plan(editors, wanted, layer))
            if (theirs := editors.images.get(wanted.id)) is not None:
                data = {**self.all_data(theirs), **data}
                wanted = _completed(wanted, theirs)
            wanted = wanted.replace(created=wanted.created or now())
            with noted(self.directory, Intent(id=wanted.id)):
                self.write_data(wanted.id, data)
                editors.images.put(wanted)
                editors.images.save()
        return Image(self, wanted)

    def by_digest(self, digest: str) -> list[Image]:
        """Give the images that have a manifest with this digest."""
        return [image for image in self if digest in image.digests]

    def by_layer(self, layer: Layer | str) -> list[Image]:
        """Give the images whose top is `layer`, or a copy of it with other owners. Raises LayerUnknown."""
        with self._tables.reading("layers", "images") as views:
            id = self.layers.required(views.layers, layer.id if isinstance(layer, Layer) else layer).id
            return [Image(self, image) for image in views.images if id in (image.layer, *image.mapped_layers)]

    def home(self, record: ImageRecord) -> str:
        """Say where the data files of the images are that are in the same file as `record`."""
        return os.path.dirname(record.origin) or self.directory

    def all_data(self, record: ImageRecord) -> dict[str, bytes]:
        """Read all big data of an image, another store's perhaps. Raises BigDataUnknown, InvalidID, OSError."""
        home = os.path.join(self.home(record), check_id(record.id))
        try:
            return {key: big_data.read(home, key) for key in record.big_data_names}
        except BigDataUnknown as error:
            raise BigDataUnknown(error.ref, f'image {record.id}: "{error.ref}" in {home}') from None

    def write_data(self, id: str, data: Mapping[str, bytes]) -> None:
        """Write big data of a new image."""
        for key, value in data.items():
            big_data.write(os.path.join(self.directory, id), key, value)

    def missing(self, ref: str) -> NotFound:
        """Make the error that there is no image `ref`."""
        return ImageUnknown(ref, f'locating image with ID "{ref}"')

    @staticmethod
    def _plan(views: Views, wanted: ImageRecord, layer: Layer | str | None) -> str:
        """Find the ID of the top layer, or raise why `wanted` may not be made."""
        top = ""
        if layer is not None:
            found = views.layers.find(layer.id if isinstance(layer, Layer) else layer)
            if found is None:
                raise LayerUnknown(layer.id if isinstance(layer, Layer) else layer)
            top = found.id
        if wanted.id in views.images.own:
            raise DuplicateID(f'an image with ID "{wanted.id}" already exists')
        for name in wanted.names:
            if (holder := views.images.own.by_name(name)) is not None:
                raise DuplicateName(f'image name "{name}" is already associated with image "{holder.id}"')
        return top


class Image(Item["ImageRecord"]):
    """One image."""

    _collection: Images

    @property
    def layer_id(self) -> str:
        """The ID of the top layer, or "" for an image without layers."""
        return self.record.layer

    @property
    def digest(self) -> str:
        """The digest of its manifest, or ""."""
        return self.record.digest

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of all its manifests, the main one first."""
        record = self.record
        manifests = [digest for key, digest in record.big_data_digests.items() if digest and key.startswith("manifest")]
        return tuple(dict.fromkeys([record.digest, *manifests] if record.digest else manifests))

    @property
    def names_history(self) -> tuple[str, ...]:
        """All names that it has had since it was made, the newest first."""
        return self.record.names_history

    @property
    def directory(self) -> Path:
        """A directory for files of whoever uses the image, kept until it is deleted; made if need be."""
        return self._userdata(self._collection.user_homes[0])

    @property
    def run_directory(self) -> Path:
        """The same for files that need not outlive a reboot."""
        return self._userdata(self._collection.user_homes[1])

    def mount(self, *, options: Sequence[str] = (), label: str = "") -> Mount:
        """Mount its top layer so that nobody can write to it, or count one more use of the layer's mount.

        A layer that somebody has mounted stays as it is, writable or not. Raises LayerUnknown (an image without layers,
        too), DriverError, OSError.
        """
        return self._top().mount(options=options, label=label, read_only=True)

    def unmount(self, *, force: bool = False) -> bool:
        """Undo one mount of its top layer, or all with `force`; tell whether the layer is still mounted."""
        return self._top().unmount(force=force)

    def size(self, *, progress: Callback | None = None) -> int:
        """Count the bytes of its layers (uncompressed, as they came in) and of its big data.

        `progress` is told of the comparing of layers that did not come in.
        """
        with self._collection._tables.reading("layers", "images") as views:
            record = self._now(views.images)
            chain: dict[str, int | None] = {}
            for top in (record.layer, *record.mapped_layers):
                self._measure_chain(views, top, chain)
        total = sum(record.big_data_sizes.values())
        for id, size in chain.items():
            total += size if size is not None else self._collection.layers[id].diff_size(progress=progress)
        return total

    def _top(self) -> Layer:
        return self._collection.layers[self.refresh().record.layer]

    @staticmethod
    def _measure_chain(views: Views, top: str, chain: dict[str, int | None]) -> None:
        id = top
        while id and id not in chain:
            layer = views.layers.get(id)
            if layer is None:
                raise LayerUnknown(id, f'locating layer with ID "{id}"')
            chain[id] = layer.diff_size if layer.diff_digest else None
            id = layer.parent

    def delete(self, *, with_layers: bool = True, commit: bool = True, progress: Callback | None = None) -> list[str]:
        """Remove the image, and `with_layers` those of its layers that nobody else needs; say which layers.

        With `commit=False` nothing is removed. `progress` as in `Layer.delete`. Raises ImageUsedByContainer,
        ImageUnknown, OSError.
        """
        with metering(progress, "removing") as meter:
            return self._delete(meter, with_layers=with_layers, commit=commit)

    def _delete(self, meter: Meter | None, *, with_layers: bool = True, commit: bool = True) -> list[str]:
        owner = self._collection
        files = owner.layers.files
        with (
            files.bins(meter) as bins,
            owner._tables.writing("layers", "images", "mounts", also_reading=("containers",)) as editors,
        ):
            record = self._own(editors.images)
            references.refuse_if_image_needed(editors.containers, record.id)
            going = references.only_for_image(editors, record) if with_layers else []
            if commit:
                with noted(owner.home(record), Intent(id=record.id, layers=tuple(going))):
                    editors.images.remove(record.id)
                    editors.images.save()
                    files.remove(editors.layers, going, bins)
                    for id in going:
                        editors.mounts.remove(id)
                    for home in (owner.home(record), *owner.user_homes):
                        remove_tree(os.path.join(home, record.id))
        return going

    def _change_names(self, change: Callable[[tuple[str, ...]], Sequence[str]]) -> None:
        """Change the names; an image of an additional store is first made one of the store's own, with all it has."""
        owner = self._collection
        with owner._tables.writing("images") as editors:
            record = self._now(editors.images)
            renamed = self._renamed(record, distinct(change(record.names)))
            if record.read_only:
                renamed = renamed.replace(origin="", read_only=False)
                data = owner.all_data(record)
                with noted(owner.directory, Intent(id=record.id)):
                    owner.write_data(record.id, data)
                    editors.images.put(renamed)
                    editors.images.save()
            else:
                editors.images.put(renamed)
            self.record = renamed

    def _renamed(self, record: ImageRecord, names: tuple[str, ...]) -> ImageRecord:
        """Names that an image gets are remembered, newest first (Go puts one after the other in front)."""
        return record.replace(names=names, names_history=distinct((*reversed(names), *record.names_history)))


def _completed(wanted: ImageRecord, theirs: ImageRecord) -> ImageRecord:
    """Add to a new image what an additional store says of the one with its ID (Go's library since 1.44)."""
    names = distinct((*theirs.names, *wanted.names))
    return wanted.replace(
        names=names,
        names_history=distinct((*reversed(names), *theirs.names_history)),
        digest=wanted.digest or theirs.digest,
        metadata=wanted.metadata or theirs.metadata,
        created=wanted.created or theirs.created,
        flags={**theirs.flags, **wanted.flags},
        big_data_names=distinct((*theirs.big_data_names, *wanted.big_data_names)),
        big_data_sizes={**theirs.big_data_sizes, **wanted.big_data_sizes},
        big_data_digests={**theirs.big_data_digests, **wanted.big_data_digests},
    )


def _valid(digest: str) -> str:
    from layerhold.digests import Digest

    try:
        return Digest.parse(digest) if digest else ""
    except InvalidDigest as error:
        about = f'validating digests for new image: validating image digest "{digest}"'
        raise type(error)(digest, about) from None
