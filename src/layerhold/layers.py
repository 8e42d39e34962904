"""Layers: made, filled, mounted, compared, written out.

`create` with a diff works in three parts. Under the shared lock it is found out whether the layer may be made. Then,
with no lock held, the driver makes a place aside and the tar stream is unpacked into it. Under the exclusive lock the
same question is asked again (names may have been taken, the parent may have been deleted, or deleted and pulled again
under the same ID), the record is saved as incomplete, the files are renamed into place, and the record is saved as
complete. A crash leaves either nothing but a directory aside, or an incomplete record; both are swept.
"""

from __future__ import annotations

import os

from layerhold import references
from layerhold.blocks import ExitStack, contextmanager
from layerhold.collection import Collection, Item, distinct
from layerhold.drivers.base import LayerSpec, MountOptions
from layerhold.errors import (
    DuplicateID,
    DuplicateName,
    LayerNotMounted,
    LayerUnknown,
    ParentIsContainer,
    ReadOnlyStore,
)
from layerhold.identifiers import check_id, new_id
from layerhold.ids.mappings import effective
from layerhold.progress import Meter, metered, metering
from layerhold.records.model import LayerRecord, MountRecord, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from layerhold.archive.apply import Applied
    from layerhold.archive.changes import Change
    from layerhold.archive.compress import Readable
    from layerhold.comparing import Comparison
    from layerhold.drivers.base import Build, Contents, Driver
    from layerhold.ids.mappings import IdMappings
    from layerhold.layer_files import LayerFiles
    from layerhold.lock import LockFile
    from layerhold.progress import Callback
    from layerhold.tables import AnyTables, Editors, Views
    from layerhold.tree.trash import TempDir

_BLOCK = 1 << 20


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
        squash: bool,
        default_mappings: IdMappings | None = None,
    ) -> None:
        super().__init__(tables, files.directory)
        self.files = files
        self.driver: Driver = files.driver
        self.storage_lock = storage_lock
        self.squash = squash
        self.default_mappings = default_mappings
        self.item = Layer

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
        with self._tables.reading("layers", "containers") as views:
            base = self._plan(views, wanted, above)
        given = self.default_mappings if mappings is None and base is None else mappings
        wanted = wanted.replace(parent=base.id if base else "", mappings=self._recorded(given, base))
        with ExitStack() as aside:
            spec = LayerSpec(
                writable=writable,
                label=label,
                mappings=wanted.mappings,
                parent_mappings=base.mappings if base else None,
            )
            build = aside.enter_context(self.driver.building(wanted.id, wanted.parent or None, spec, progress))
            split = None
            if diff is not None:
                split = aside.enter_context(self.files.aside.open()).place("split")
                wanted = self._filled(
                    wanted,
                    self._apply(
                        diff, build.contents, split, expect=expect, mappings=wanted.mappings, progress=progress
                    ),
                )
            build.sync()
            with self._tables.writing("layers", also_reading=("containers",)) as editors:
                self.put(editors, wanted, base, build, split)
        return Layer(self, wanted)

    def put(
        self, editors: Editors, wanted: LayerRecord, base: LayerRecord | None, build: Build, split: str | None = None
    ) -> None:
        """Put a layer that was built aside into the store. Raises as `create` does, if it may not be there any more."""
        again = self._plan(editors, wanted, base.id if base else None)
        if again is not None and base is not None and not _same(again, base):
            raise LayerUnknown(base.id, f"parent {base.id} was made anew while the layer was unpacked")
        with editors.layers.pending(wanted):
            build.publish()
            if split is not None:
                os.rename(split, self.files.split(wanted.id))

    def _recorded(self, mappings: IdMappings | None, base: LayerRecord | None) -> IdMappings | None:
        """Give the maps with which the files of a new layer are made: none where mounts can show them.

        Raises StorageError for maps in which the container has no root, since files are owned by it then.
        """
        wanted = effective(mappings, base.mappings if base else None)
        if wanted is None or ((base is None or base.mappings is None) and self.driver.maps_at_mount()):
            return None
        wanted.root()
        return wanted

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
        with self.driver.duplicating(wanted.id, top.id, spec, progress) as build, self.files.aside.open() as aside:
            split = self.copied_split(top, aside)
            build.sync()
            with self._tables.writing("layers", also_reading=("containers",)) as editors:
                self.put(editors, wanted, base, build, split)
        return Layer(self, wanted)

    def copied_split(self, layer: LayerRecord, aside: TempDir) -> str | None:
        """Copy aside how the layer's tar was put together; None if that is not known."""
        path = self.files.split(layer.id, self.home(layer))
        if not os.path.exists(path):
            return None
        place = aside.place("split")
        with open(path, "rb") as source, open(place, "xb") as copy:
            while block := source.read(_BLOCK):
                copy.write(block)
        return place

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

    def _plan(self, views: Views, wanted: LayerRecord, parent: str | None) -> LayerRecord | None:
        """Find the parent, or raise why `wanted` may not be made."""
        layers = views.layers
        if wanted.id in layers.own:
            raise DuplicateID()
        for name in wanted.names:
            if layers.own.by_name(name) is not None:
                raise DuplicateName()
        if not parent:
            return None
        base = self.required(layers, parent)
        if references.container_of(views.containers, base.id) is not None:
            raise ParentIsContainer()
        return base

    def _apply(
        self,
        diff: Readable,
        contents: Contents,
        split: str,
        *,
        expect: str | None,
        mappings: IdMappings | None,
        progress: Callback | None,
    ) -> Applied:
        from layerhold.archive.apply import apply

        return apply(
            diff,
            contents.path,
            deletions=contents.deletions,
            xattr_prefix=contents.xattr_prefix,
            mappings=mappings,
            squash=self.squash,
            split_path=split,
            expect=expect,
            progress=progress,
        )

    @staticmethod
    def _filled(record: LayerRecord, applied: Applied) -> LayerRecord:
        return record.replace(
            compressed_diff_digest=str(applied.compressed_digest),
            compressed_size=applied.compressed_size,
            diff_digest=str(applied.diff_digest),
            diff_size=applied.diff_size,
            compression=applied.compression,
            uids=applied.uids,
            gids=applied.gids,
        )


class Layer(Item["LayerRecord"]):
    """One layer."""

    _collection: Layers

    @property
    def parent_id(self) -> str:
        """The ID of the layer below, or ""."""
        return self.record.parent

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

        The layer changes as a whole or not at all; it is locked meanwhile. `progress` is told of the copying of what it
        has, then of the unpacking. Raises as `Layers.create` does.
        """
        owner = self._collection
        with ExitStack() as stack:
            split = stack.enter_context(owner.files.aside.open()).place("split")
            editor, record = stack.enter_context(self.changing())
            build = stack.enter_context(owner.driver.rebuilding(self.id, progress))
            filled = owner._filled(
                record,
                owner._apply(diff, build.contents, split, expect=expect, mappings=record.mappings, progress=progress),
            )
            build.sync()
            build.publish()
            os.rename(split, owner.files.split(self.id))
            self.record = filled
            editor.put(filled)

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
        from layerhold.comparing import at_mount

        owner = self._collection
        with owner.storage_lock.exclusive(), owner._tables.writing("layers", "mounts") as editors:
            record = self._now(editors.layers)
            if record.read_only and not read_only:
                raise ReadOnlyStore("mounting read/only store images is not allowed", hint="mount it to be read only")
            mounted = editors.mounts.get(self.id)
            wanted = MountOptions(
                label=label or record.mount_label,
                options=tuple(options),
                read_only=read_only,
                volatile=volatile,
                mappings=at_mount(editors.layers, record.replace(mappings=record.mappings or mappings)),
            )
            path = owner.driver.mount(self.id, wanted)
            count = mounted.count + 1 if mounted else 1
            editors.mounts.put(MountRecord(id=self.id, path=path, count=count))
        return Mount(self, path)

    def unmount(self, *, force: bool = False) -> bool:
        """Undo one `mount`, or all of them with `force`; tell whether the layer is still mounted."""
        owner = self._collection
        with owner._tables.writing("layers", "mounts") as editors:
            self._now(editors.layers)
            mounted = editors.mounts.get(self.id)
            if mounted and mounted.count > 1 and not force:
                editors.mounts.put(mounted.replace(count=mounted.count - 1))
                return True
            owner.driver.unmount(self.id)
            if mounted:
                editors.mounts.remove(self.id)
        return False

    @property
    def mount_count(self) -> int:
        """How many uses of its mount are counted."""
        mounted = self._mounted()
        return mounted.count if mounted else 0

    @property
    def mount_point(self) -> Path | None:
        """Where it is mounted."""
        from pathlib import Path

        mounted = self._mounted()
        return Path(mounted.path) if mounted else None

    def parent_owners(self) -> tuple[list[int], list[int]]:
        """Say who owns directories above the mount point and is nobody in the container: users and groups, sorted.

        A layer without ID maps has nobody of that kind. Raises LayerNotMounted, LayerUnknown, OSError.
        """
        with self._collection._tables.reading("layers", "mounts") as views:
            mappings, mounted = self._now(views.layers).mappings, views.mounts.get(self.id)
        if mappings is None:
            return [], []
        if mounted is None:
            raise LayerNotMounted()
        infos = [os.lstat(directory) for directory in _above(mounted.path)]
        uids, gids = mappings.outside([info.st_uid for info in infos], [info.st_gid for info in infos])
        return list(uids), list(gids)

    def delete(self, *, progress: Callback | None = None) -> None:
        """Remove the layer. Raises LayerHasChildren, LayerUsedByImage, LayerUsedByContainer, LayerUnknown, OSError.

        `progress` is told how many files are deleted. The layer has gone by then: what it raises only leaves the rest
        of the files to the next opening of the store.
        """
        with metering(progress, "removing") as meter:
            self._delete(meter)

    def _delete(self, meter: Meter | None) -> None:
        owner = self._collection
        with (
            owner.files.bins(meter) as bins,
            owner._tables.writing("layers", "mounts", also_reading=("images", "containers")) as editors,
        ):
            self._own(editors.layers)
            references.refuse_if_layer_needed(editors, self.id)
            owner.files.remove(editors.layers, [self.id], bins)
            editors.mounts.remove(self.id)

    def _mounted(self) -> MountRecord | None:
        with self._collection._tables.reading("layers", "mounts") as views:
            self._now(views.layers)
            return views.mounts.get(self.id)

    @contextmanager
    def _compared(self, against: Layer | str | None) -> Iterator[Comparison]:
        """Hold the layers' lock, and this layer against another."""
        from layerhold.comparing import Comparison

        other = against.id if isinstance(against, Layer) else against
        with self._collection._tables.reading("layers") as views:
            self.record = self._now(views.layers)
            with Comparison(self._collection.driver, views.layers, self.record, other) as comparison:
                yield comparison


class Mount:
    """A mounted layer: a path (`os.fspath`, `/`), and a block at whose end it is unmounted."""

    def __init__(self, layer: Layer, path: str) -> None:
        self.layer = layer
        self._path = path

    @property
    def path(self) -> Path:
        """Where the layer is mounted."""
        from pathlib import Path

        return Path(self._path)

    def unmount(self) -> bool:
        """Undo this mount; tell whether the layer is still mounted by others."""
        return self.layer.unmount()

    def __fspath__(self) -> str:
        return self._path

    def __str__(self) -> str:
        return self._path

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_error: object) -> None:
        self.unmount()


def _above(path: str) -> Iterator[str]:
    """Give the directories above `path`, the nearest first, without `/`."""
    while (path := os.path.dirname(path)) != "/":
        yield path


def _same(one: LayerRecord, other: LayerRecord) -> bool:
    """Tell whether two records are of one layer, not of two that were given the same ID one after the other."""
    return (one.created, one.diff_digest, one.compressed_diff_digest) == (
        other.created,
        other.diff_digest,
        other.compressed_diff_digest,
    )
