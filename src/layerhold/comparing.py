"""One layer held against another: what differs, how large it is, and the tar of it.

The layer that is compared with is the parent, unless another one is named; a name that is not known stands for the
parent, as in the Go library, and if there is none for itself (then the driver says that it has no files of it). Drivers
give the changes alone where they can (`Contents.lowers`), else both trees whole: mounted, or to be read from several
directories at once (`Contents.united`). The caller holds the layers' lock.
"""

from __future__ import annotations

from layerhold.blocks import ExitStack
from layerhold.drivers.base import ERASE, FUSE_MARKS
from layerhold.errors import DamagedLayer
from layerhold.progress import Meter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypedDict

    from layerhold.archive.changes import Change, Maps
    from layerhold.archive.united import United
    from layerhold.drivers.base import Contents, Driver
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback
    from layerhold.records.model import LayerRecord
    from layerhold.records.view import View

    class How(TypedDict):
        """How to read a tree (archive/changes.py, archive/export.py)."""

        deletions: str
        lowers: tuple[str, ...] | None
        xattr_prefix: str


class Comparison:
    """Layer `record` against the layer `against` (its ID or name, or None): a block, for as long as files are read."""

    def __init__(self, driver: Driver, layers: View[LayerRecord], record: LayerRecord, against: str | None) -> None:
        self._driver = driver
        self._record = record
        found = layers.find(against) if against else None
        self._other = found.id if found else record.parent or against or None
        other = layers.get(self._other) if self._other else None
        self._maps: Maps | None = None
        if other is not None and other.mappings != record.mappings:
            self._maps = other.mappings, record.mappings
        self._at_mount = at_mount(layers, record)
        self._stack = ExitStack()

    def __enter__(self) -> Comparison:
        self._stack.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    @property
    def is_with_parent(self) -> bool:
        """Whether the layer is compared with what it stands on."""
        return self._other == (self._record.parent or None)

    def changes(self, meter: Meter | None = None) -> list[Change]:
        """Say what differs, sorted by path. Raises OSError, LayerUnknown, DriverError."""
        from layerhold.archive import changes

        base, contents = self._open()
        return list(changes.between(base, tree_of(contents), maps=self._maps, meter=meter, **_how(contents)))

    def size(self, meter: Meter | None = None) -> int:
        """Count the bytes of the files that differ. Raises as `changes` does."""
        from layerhold.archive import changes

        base, contents = self._open()
        return changes.diff_size(base, tree_of(contents), maps=self._maps, meter=meter, **_how(contents))

    def tar(self, progress: Callback | None = None) -> Iterator[bytes]:
        """Write what differs as a tar, anew from the files. Raises as `changes` does, and StorageError."""
        from layerhold.archive import changes, export

        base, contents = self._open()
        meter = None if progress is None else Meter(progress, "comparing")
        how = _how(contents)
        tree = tree_of(contents)
        found = None if base is None else changes.between(base, tree, maps=self._maps, meter=meter, **how)
        return export.tar(tree, changes=found, mappings=self._record.mappings, **how)

    def original(self, split: str) -> Iterator[bytes]:
        """Put the tar together that came in, by its tar-split file. Raises DamagedLayer, OSError."""
        from layerhold.archive.assemble import assemble
        from layerhold.tree.root import Root

        own = self._stack.enter_context(self._driver.own_files(self._record.id))
        root = self._stack.enter_context(Root(own.path))
        return _counted(assemble(split, root.open_file), self._record)

    def _open(self) -> tuple[str | United | None, Contents]:
        """Open the tree to compare with (None if it is not needed), and what is compared with it."""
        enter = self._stack.enter_context
        contents = enter(self._driver.contents(self._record.id, against=self._other, mappings=self._at_mount))
        if self._other is None or (contents.lowers is not None and not contents.united):
            return None, contents
        return tree_of(enter(self._driver.contents(self._other, against=None))), contents


def at_mount(layers: View[LayerRecord], record: LayerRecord) -> IdMappings | None:
    """Give the maps by which a mount is to show the layers below; if these have maps, their files' owners are right."""
    parent = layers.get(record.parent) if record.parent else None
    return record.mappings if parent is not None and parent.mappings is None else None


def tree_of(contents: Contents) -> str | United:
    """Give the tree that `contents` are: a directory, or several that are one tree together."""
    if not contents.united:
        return contents.path
    from layerhold.archive.united import United

    paths = (contents.path, *(contents.lowers or ()))
    if contents.deletions == FUSE_MARKS:
        from layerhold.archive.fuse_layers import FuseRoot, MarksOfFuse

        return United(paths, MarksOfFuse(), root=FuseRoot)
    from layerhold.archive.whiteouts import marks

    return United(paths, marks(contents.deletions, contents.xattr_prefix))


def _how(contents: Contents) -> How:
    if contents.united:
        return {"deletions": ERASE, "lowers": None, "xattr_prefix": contents.xattr_prefix}
    return {"deletions": contents.deletions, "lowers": contents.lowers, "xattr_prefix": contents.xattr_prefix}


def _counted(chunks: Iterator[bytes], record: LayerRecord) -> Iterator[bytes]:
    """Pass the chunks on, and raise DamagedLayer if they are not as many bytes as the record says."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        yield chunk
    if record.diff_digest and size != record.diff_size:
        raise DamagedLayer(f"layer {record.id}: read {size} bytes instead of {record.diff_size} bytes")
