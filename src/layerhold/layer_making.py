"""Layers in the making: looked whether they may be, built aside, put into the store.

A layer comes in three parts. Under the shared lock it is found out whether it may be made. Then, with no lock held, the
driver makes a place aside and the tar stream is unpacked into it. Under the exclusive lock the same question is asked
again (names may have been taken, the parent may have been deleted, or deleted and pulled again under the same ID), the
record is saved as incomplete, the files are renamed into place, and the record is saved as complete. A crash leaves
either nothing but a directory aside, or an incomplete record; both are swept.
"""

from __future__ import annotations

import os

from layerhold import references
from layerhold.blocks import ExitStack
from layerhold.drivers.base import LayerSpec
from layerhold.errors import DuplicateID, DuplicateName, LayerUnknown, ParentIsContainer, quoted
from layerhold.ids.mappings import effective

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layerhold.archive.apply import Applied
    from layerhold.archive.source import Readable
    from layerhold.drivers.base import Build, Contents, Driver
    from layerhold.ids.mappings import IdMappings
    from layerhold.layer_files import LayerFiles
    from layerhold.progress import Callback
    from layerhold.records.model import LayerRecord
    from layerhold.records.view import View
    from layerhold.tables import AnyTables, Editors, Views
    from layerhold.tree.trash import TempDir

_BLOCK = 1 << 20


class LayerMaker:
    """Makes the layers of a store; `default_mappings` are those of layers that are given none."""

    def __init__(self, tables: AnyTables, files: LayerFiles, default_mappings: IdMappings | None) -> None:
        self._tables = tables
        self._files = files
        self._driver: Driver = files.driver
        self._default_mappings = default_mappings

    def create(
        self,
        wanted: LayerRecord,
        parent: str | None,
        *,
        writable: bool,
        mappings: IdMappings | None,
        diff: Readable | None,
        expect: str | None,
        progress: Callback | None,
    ) -> LayerRecord:
        """Make the layer `wanted` over `parent`, filled from `diff`; as `Layers.create`, which says what is raised."""
        with self._tables.reading("layers", "containers") as views:
            base = _plan(views, wanted, parent)
        given = self._default_mappings if mappings is None and base is None else mappings
        wanted = wanted.replace(parent=base.id if base else "", mappings=self._recorded(given, base))
        spec = LayerSpec(
            writable=writable,
            label=wanted.mount_label,
            mappings=wanted.mappings,
            parent_mappings=base.mappings if base else None,
        )
        with ExitStack() as aside:
            build = aside.enter_context(self._driver.building(wanted.id, wanted.parent or None, spec, progress))
            split = None
            if diff is not None:
                split = aside.enter_context(self._files.aside.open()).place("split")
                wanted = self.fill(wanted, build.contents, diff, split, expect=expect, progress=progress)
            self._publish(wanted, base, build, split, filled=diff is not None)
        return wanted

    def copy(
        self,
        top: LayerRecord,
        base: LayerRecord | None,
        wanted: LayerRecord,
        spec: LayerSpec,
        progress: Callback | None,
    ) -> None:
        """Make the layer `wanted` over `base` with all that the layer `top` has. Raises as `Layers.copy` does."""
        with self._driver.duplicating(wanted.id, top.id, spec, progress) as build, self._files.aside.open() as aside:
            split = self.copied_split(top, aside)
            self._publish(wanted, base, build, split, filled=True)

    def fill(
        self,
        record: LayerRecord,
        contents: Contents,
        diff: Readable,
        split: str,
        *,
        expect: str | None,
        progress: Callback | None,
    ) -> LayerRecord:
        """Unpack `diff` into `contents`, note in `split` how it was put together, and give the record with both."""
        from layerhold.archive.apply import apply

        applied = apply(
            diff,
            contents.path,
            deletions=contents.deletions,
            xattr_prefix=contents.xattr_prefix,
            mappings=record.mappings,
            squash=self._driver.squash,
            mask=contents.mask,
            split_path=split,
            expect=expect,
            progress=progress,
        )
        return _filled(record, applied)

    def put(
        self, editors: Editors, wanted: LayerRecord, base: LayerRecord | None, build: Build, split: str | None = None
    ) -> None:
        """Put a layer that was built aside into the store. Raises as `create` does, if it may not be there any more."""
        again = _plan(editors, wanted, base.id if base else None)
        if again is not None and base is not None and not _same(again, base):
            raise LayerUnknown(base.id, f"parent {base.id} was made anew while the layer was unpacked")
        batch = self._tables.batch
        with editors.layers.pending(wanted) if batch is None else batch.adding(wanted):
            build.publish()
            if split is not None:
                os.rename(split, self._files.split(wanted.id))

    def copied_split(self, layer: LayerRecord, aside: TempDir) -> str | None:
        """Copy aside how the layer's tar was put together; None if that is not known."""
        path = self._files.split(layer.id, os.path.dirname(layer.origin) if layer.read_only else "")
        if not os.path.exists(path):
            return None
        place = aside.place("split")
        with open(path, "rb") as source, open(place, "xb") as copy:
            while block := source.read(_BLOCK):
                copy.write(block)
        return place

    def _publish(
        self, wanted: LayerRecord, base: LayerRecord | None, build: Build, split: str | None, *, filled: bool
    ) -> None:
        if self._tables.batch is None:
            build.sync(filled=filled)
        with self._tables.writing("layers", also_reading=("containers",)) as editors:
            self.put(editors, wanted, base, build, split)

    def _recorded(self, mappings: IdMappings | None, base: LayerRecord | None) -> IdMappings | None:
        """Give the maps with which the files of a new layer are made: none where mounts can show them.

        Raises StorageError for maps in which the container has no root, since files are owned by it then.
        """
        wanted = effective(mappings, base.mappings if base else None)
        if wanted is None or ((base is None or base.mappings is None) and self._driver.maps_at_mount()):
            return None
        wanted.root()
        return wanted


def required(layers: View[LayerRecord], ref: str) -> LayerRecord:
    """Find the layer `ref`. Raises LayerUnknown."""
    record = layers.find(ref)
    if record is None:
        raise LayerUnknown(ref)
    return record


def _plan(views: Views, wanted: LayerRecord, parent: str | None) -> LayerRecord | None:
    """Find the parent, or raise why `wanted` may not be made."""
    layers = views.layers
    if wanted.id in layers.own:
        raise DuplicateID(hint=f"layer {wanted.id} is there already")
    for name in wanted.names:
        if (holder := layers.own.by_name(name)) is not None:
            raise DuplicateName(hint=f"layer {holder.id} is called {quoted(name)}")
    if not parent:
        return None
    base = required(layers, parent)
    if references.container_of(views.containers, base.id) is not None:
        raise ParentIsContainer()
    return base


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


def unfilled(record: LayerRecord) -> LayerRecord:
    """Give the record without what is known of a tar."""
    return record.replace(
        compressed_diff_digest="", compressed_size=0, diff_digest="", diff_size=0, compression=0, uids=(), gids=()
    )


def _same(one: LayerRecord, other: LayerRecord) -> bool:
    """Tell whether two records are of one layer, not of two that were given the same ID one after the other."""
    return (one.created, one.diff_digest, one.compressed_diff_digest) == (
        other.created,
        other.diff_digest,
        other.compressed_diff_digest,
    )
