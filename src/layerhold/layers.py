"""Layers: listed and looked up, and what each can do.

What the verbs take is elsewhere, and loaded when it is used: layer_making.py makes layers and fills them, comparing.py
compares them and writes them out, mounts.py mounts them, layer_files.py removes them.
"""

from __future__ import annotations

import os

from layerhold import references
from layerhold.blocks import ExitStack, contextmanager
from layerhold.collection import Collection, Item, distinct
from layerhold.drivers.base import LayerSpec
from layerhold.errors import LayerUnknown
from layerhold.identifiers import check_id, new_id
from layerhold.progress import Meter, metered, metering
from layerhold.records.model import LayerRecord, now
from layerhold.records.view import Unread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from layerhold.archive.changes import Change
    from layerhold.archive.source import Readable
    from layerhold.archive.united import United
    from layerhold.comparing import Comparison
    from layerhold.drivers.base import Driver
    from layerhold.ids.mappings import IdMappings
    from layerhold.layer_files import LayerFiles
    from layerhold.layer_making import LayerMaker
    from layerhold.lock import LockFile
    from layerhold.mounts import Mount, Mounter
    from layerhold.progress import Callback
    from layerhold.tables import AnyTables, Editors


class Layers(Collection["LayerRecord", "Layer"]):
    """All layers of a store."""

    kind = "layers"
    noun = "layer"
    unknown = LayerUnknown

    def __init__(
        self,
        tables: AnyTables,
        files: LayerFiles,
        storage_lock: LockFile,
        *,
        default_mappings: IdMappings | None = None,
    ) -> None:
        super().__init__(tables, files.directory)
        self.files = files
        self.driver: Driver = files.driver
        self.default_mappings = default_mappings
        self._storage_lock = storage_lock
        self.item = Layer

    @property
    def maker(self) -> LayerMaker:
        """What makes layers."""
        from layerhold.layer_making import LayerMaker

        return LayerMaker(self._tables, self.files, self.default_mappings)

    @property
    def mounter(self) -> Mounter:
        """What mounts them."""
        from layerhold.mounts import Mounter

        return Mounter(self._tables, self.driver, self._storage_lock)

    def create(
        self,
        parent: Layer | str | None = None,
        *,
        id: str | None = None,
        names: Sequence[str] = (),
        metadata: str = "",
        flags: Mapping[str, object] | None = None,
        writable: bool = True,
        label: str = "",
        mappings: IdMappings | None = None,
        diff: Readable | None = None,
        expect: str | None = None,
        progress: Callback | None = None,
    ) -> Layer:
        """Make a layer over `parent`, filled from the tar stream `diff` if there is one.

        `mappings` say who in it is who on the host: None, as in the parent; without ranges, as on the host. A driver
        that can show other owners at mount does without them, and the files have the owners of the tar. `diff` is
        anything with `read(n)`: plain tar, or compressed with gzip, zstd, xz or bzip2. `expect` is the digest that the
        stream, as it comes or uncompressed, is to have. Raises LayerUnknown (the parent), ParentIsContainer,
        DuplicateID, DuplicateName, InvalidID, InvalidMappings, BadArchive, DigestMismatch, NotPermitted, StorageError
        (an owner whom the maps do not cover), OSError; then nothing is left of the layer. `progress` is told of the
        copying that some drivers make layers by, and of the unpacking.
        """
        wanted = LayerRecord(
            id=new_id() if id is None else check_id(id, reserved=self.driver.reserved),
            names=distinct(names),
            metadata=metadata,
            flags=dict(flags or {}),
            mount_label=label,
            created=now(),
            origin="" if writable else self.files.of_images,
        )
        above = parent.id if isinstance(parent, Layer) else parent
        made = self.maker.create(
            wanted, above, writable=writable, mappings=mappings, diff=diff, expect=expect, progress=progress
        )
        return Layer(self, made)

    def copy(
        self,
        template: Layer | str,
        *,
        id: str | None = None,
        names: Sequence[str] = (),
        metadata: str | None = None,
        writable: bool = True,
        progress: Callback | None = None,
    ) -> Layer:
        """Make another layer with all that `template` has, over the same parent; neither needs the other afterwards.

        Digests, sizes and the way its tar was put together are the template's, and its metadata unless some is given.
        `progress` is told of the copying. Raises LayerUnknown, DuplicateID, DuplicateName, InvalidID, OSError; then
        nothing is left of the layer.
        """
        with self._tables.reading("layers") as views:
            top = self.required(views.layers, template.id if isinstance(template, Layer) else template)
            base = views.layers.get(top.parent) if top.parent else None
        wanted = top.replace(
            id=new_id() if id is None else check_id(id, reserved=self.driver.reserved),
            names=distinct(names),
            metadata=top.metadata if metadata is None else metadata,
            created=now(),
            flags={},
            big_data_names=(),
            origin="" if writable else self.files.of_images,
            read_only=False,
        )
        spec = LayerSpec(writable=writable, mappings=top.mappings, parent_mappings=top.mappings)
        self.maker.copy(top, base, wanted, spec, progress)
        return Layer(self, wanted)

    def by_digest(self, digest: str) -> list[Layer]:
        """Give the layers whose diff has this digest, as it came in or uncompressed. Raises InvalidDigest."""
        return self._with_digest(digest, "diff_digest", "compressed_diff_digest")

    def by_compressed_digest(self, digest: str) -> list[Layer]:
        """Give the layers whose diff had this digest as it came in. Raises InvalidDigest."""
        return self._with_digest(digest, "compressed_diff_digest")

    def by_uncompressed_digest(self, digest: str) -> list[Layer]:
        """Give the layers whose diff has this digest when it is not compressed (their DiffID). Raises InvalidDigest."""
        return self._with_digest(digest, "diff_digest")

    def by_toc_digest(self, digest: str) -> list[Layer]:
        """Give the layers that were pulled by a table of contents with this digest. Raises InvalidDigest."""
        return self._with_digest(digest, "toc_digest")

    def _with_digest(self, digest: str, *fields: str) -> list[Layer]:
        from layerhold.digests import Digest

        wanted = Digest.parse(digest)
        return [layer for layer in self if any(getattr(layer.record, field) == wanted for field in fields)]


class Layer(Item["LayerRecord"]):
    """One layer."""

    _collection: Layers

    @property
    def parent_id(self) -> str:
        """The ID of the layer below, or ""."""
        record = self._record
        return record.text("parent") if isinstance(record, Unread) else record.parent

    @property
    def size(self) -> int | None:
        """How many bytes its tar has when it is not compressed, if it came in as one; `diff_size()` looks at the files.

        Looks at the record only.
        """
        return self.record.diff_size if self.record.diff_digest else None

    @property
    def parent(self) -> Layer | None:
        """The layer below."""
        return self._collection[self.record.parent] if self.record.parent else None

    def apply(self, diff: Readable, *, expect: str | None = None, progress: Callback | None = None) -> None:
        """Unpack a tar stream over what the layer has, and keep its digests and its tar-split file as the layer's.

        The files change as a whole or not at all; the layer is locked meanwhile. A crash or an error in the moment of
        the change leaves the old ones or the new ones without digests, as of a layer that came from no tar. `progress`
        is told of the copying of what it has, then of the unpacking. Raises as `Layers.create` does.
        """
        from layerhold.comparing import at_mount
        from layerhold.layer_making import unfilled

        owner = self._collection
        with ExitStack() as stack:
            aside = stack.enter_context(owner.files.aside.open())
            split = aside.place("split")
            editor, record = stack.enter_context(self.changing())
            build = stack.enter_context(owner.driver.rebuilding(self.id, progress))
            inside = build.contents.owners_inside and at_mount(editor, record) is not None
            to_fill = record.replace(mappings=None) if inside else record
            filled = owner.maker.fill(to_fill, build.contents, diff, split, expect=expect, progress=progress)
            filled = filled.replace(mappings=record.mappings)
            build.sync()
            if record.diff_digest:
                editor.put(unfilled(record))
                editor.save()
            aside.take(owner.files.split(self.id))
            build.publish()
            os.rename(split, owner.files.split(self.id))
            self.record = filled
            editor.put(filled)
            editor.save()

    def changes(self, against: Layer | str | None = None, *, progress: Callback | None = None) -> list[Change]:
        """Say what differs from the parent, or from layer `against`, sorted by path. Raises LayerUnknown, OSError."""
        with metering(progress, "comparing") as meter, self._compared(against) as comparison:
            return comparison.changes(meter)

    def diff_size(self, against: Layer | str | None = None, *, progress: Callback | None = None) -> int:
        """Say how many bytes the files have that differ from the parent, or from layer `against`."""
        with metering(progress, "comparing") as meter, self._compared(against) as comparison:
            return comparison.size(meter)

    @contextmanager
    def diff(
        self,
        against: Layer | str | None = None,
        *,
        compression: int | None = None,
        regenerate: bool = False,
        progress: Callback | None = None,
    ) -> Iterator[BinaryIO]:
        """Give the layer as a tar stream to read from, compressed as it came in unless `compression` says otherwise.

        Byte for byte what was brought in, if it was and `against` is the parent; otherwise (or with `regenerate`)
        written anew from the files. The layers are locked, for reading, until the block ends. `progress` is told of the
        comparing, if there is any, and how much of the tar is written; what it raises comes out of `read`. Raises
        LayerUnknown, DamagedLayer, OSError.
        """
        from layerhold.archive.compress import wrap
        from layerhold.streams import as_file

        with self._compared(against) as comparison:
            record = self.record
            how = record.compression if compression is None else compression
            split = self._collection.files.split(self.id, self._collection.home(record))
            if not regenerate and comparison.is_with_parent and os.path.exists(split):
                chunks, total = comparison.original(split), record.diff_size or None
            else:
                chunks, total = comparison.tar(progress), None
            if progress is not None:
                chunks = metered(chunks, Meter(progress, "packing", total_bytes=total))
            with as_file(wrap(chunks, how)) as file:
                yield file

    def mount(
        self,
        *,
        label: str = "",
        options: Sequence[str] = (),
        read_only: bool = False,
        volatile: bool = False,
        mappings: IdMappings | None = None,
    ) -> Mount:
        """Mount the layer, or count one more use of its mount. Raises LayerUnknown, DriverError, OSError.

        A `volatile` mount is never synced: faster, and what was written is lost if the machine crashes. `mappings` are
        used where the layer has none, and the driver can show owners by them.
        """
        from layerhold.mounts import Mount

        path = self._collection.mounter.mount(
            self.id, label=label, options=options, read_only=read_only, volatile=volatile, mappings=mappings
        )
        return Mount(self, path)

    @contextmanager
    def unmounted(self) -> Iterator[United | None]:
        """Give the tree of a layer to be read without a mount, if its driver cannot mount it; else None.

        The layers are locked, for reading, until the block ends. Raises LayerUnknown, DriverError, OSError.
        """
        owner = self._collection
        with ExitStack() as stack:
            tree: str | United = ""
            if owner.driver.features.read_only:
                from layerhold.comparing import tree_of

                self.record = self._now(stack.enter_context(owner._tables.reading("layers")).layers)
                tree = tree_of(stack.enter_context(owner.driver.contents(self.id, against=None)))
            yield None if isinstance(tree, str) else stack.enter_context(tree)

    def unmount(self, *, force: bool = False) -> bool:
        """Undo one `mount`, or all of them with `force`; tell whether the layer is still mounted."""
        return self._collection.mounter.unmount(self.id, force=force)

    @property
    def mount_count(self) -> int:
        """How many uses of its mount are counted."""
        mounted = self._collection.mounter.of(self.id)
        return mounted.count if mounted else 0

    @property
    def mount_point(self) -> Path | None:
        """Where it is mounted."""
        from pathlib import Path

        mounted = self._collection.mounter.of(self.id)
        return Path(mounted.path) if mounted else None

    def parent_owners(self) -> tuple[list[int], list[int]]:
        """Say who owns directories above the mount point and is nobody in the container: users and groups, sorted.

        A layer without ID maps has nobody of that kind. Raises LayerNotMounted, LayerUnknown, OSError.
        """
        return self._collection.mounter.parent_owners(self.id)

    def delete(self, *, progress: Callback | None = None) -> None:
        """Remove the layer. Raises LayerHasChildren, LayerUsedByImage, LayerUsedByContainer, LayerUnknown, OSError.

        `progress` is told how many files are deleted. The layer has gone by then: what it raises only leaves the rest
        of the files to the next opening of the store. In `store.writing()` they are deleted when the block has ended.
        """
        batch = self._collection._tables.batch
        if batch is not None:
            with self._needless() as editors:
                batch.remove(self.id)
                editors.mounts.remove(self.id)
            return
        with metering(progress, "removing") as meter:
            self._delete(meter)

    def _delete(self, meter: Meter | None) -> None:
        owner = self._collection
        with owner.files.bins(meter) as bins, self._needless() as editors:
            owner.files.remove(editors.layers, [self.id], bins)
            editors.mounts.remove(self.id)

    @contextmanager
    def _needless(self) -> Iterator[Editors]:
        """Hold the locks that deleting takes, if nobody needs the layer."""
        tables = self._collection._tables
        with tables.writing("layers", "mounts", also_reading=("images", "containers")) as editors:
            self._own(editors.layers)
            references.refuse_if_layer_needed(editors, self.id)
            yield editors

    @contextmanager
    def _compared(self, against: Layer | str | None) -> Iterator[Comparison]:
        """Hold the layers' lock, and this layer against another."""
        from layerhold.comparing import Comparison

        other = against.id if isinstance(against, Layer) else against
        with self._collection._tables.reading("layers") as views:
            self.record = self._now(views.layers)
            with Comparison(self._collection.driver, views.layers, self.record, other) as comparison:
                yield comparison
