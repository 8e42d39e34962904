"""The four tables of a store, locked together.

`reading` and `writing` take the locks of the tables that they are asked for, always in the order layers, images,
containers, mounts, and give back their views and editors; behind the layers and images, those of additional stores,
which are only read, can be looked up. This is the only place where more than one lock of a store is taken. `HeldTables`
stand for locks that are already held: they hand out the same views again, which is what makes `store.reading()` and
`store.writing()` work with the very same collections.
"""

from __future__ import annotations

from layerhold.blocks import ExitStack, contextmanager
from layerhold.errors import LockOrder
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

    from layerhold.layer_batches import LayerBatch
    from layerhold.records.editor import Editor
    from layerhold.records.model import ContainerRecord, ImageRecord, LayerRecord, MountRecord
    from layerhold.records.table import Table
    from layerhold.records.view import View

ORDER = ("layers", "images", "containers", "mounts")


class Views:
    """The tables that were asked for, readable."""

    layers: View[LayerRecord]
    images: View[ImageRecord]
    containers: View[ContainerRecord]
    mounts: View[MountRecord]

    def __getattr__(self, kind: str) -> object:
        raise LockOrder(f"the {kind} of the store were not locked here")


class Editors(Views):
    """The tables that were asked for, writable (those asked for `also_reading` are views, whatever the type says)."""

    layers: Editor[LayerRecord]
    images: Editor[ImageRecord]
    containers: Editor[ContainerRecord]
    mounts: Editor[MountRecord]


class Tables(Value):
    """The tables of one store. `first_write` is called once, when the layers are first locked for writing.

    `additional_layers` and `additional_images` are those of the additional stores, in the order of the look-up.
    """

    layers: Table[LayerRecord]
    images: Table[ImageRecord]
    containers: Table[ContainerRecord]
    mounts: Table[MountRecord]
    first_write: Callable[[], None]
    additional_layers: tuple[Table[LayerRecord], ...] = ()
    additional_images: tuple[Table[ImageRecord], ...] = ()

    @property
    def batch(self) -> LayerBatch | None:
        """None: each layer that comes or goes is saved by itself."""
        return None

    @contextmanager
    def reading(self, *kinds: str) -> Iterator[Views]:
        """Hold the shared locks of `kinds`, all fresh."""
        views = Views()
        with ExitStack() as stack:
            for kind in ORDER:
                if kind in kinds:
                    setattr(views, kind, self._read(kind, stack))
            yield views

    @contextmanager
    def writing(self, *kinds: str, also_reading: tuple[str, ...] = ()) -> Iterator[Editors]:
        """Hold the exclusive locks of `kinds` and the shared ones of `also_reading`; saved if the block ends well."""
        editors = Editors()
        with ExitStack() as stack:
            for kind in ORDER:
                if kind in kinds:
                    editor = stack.enter_context(getattr(self, kind).writing())
                    editor.others = self._others(kind, stack)
                    setattr(editors, kind, editor)
                elif kind in also_reading:
                    setattr(editors, kind, self._read(kind, stack))
                if kind == "layers" and kind in kinds:
                    self.first_write()
            yield editors

    def _read(self, kind: str, stack: ExitStack) -> View[Any]:
        view = stack.enter_context(getattr(self, kind).reading())
        others = self._others(kind, stack)
        return view.joined(others) if others else view  # type: ignore[no-any-return]

    def _others(self, kind: str, stack: ExitStack) -> tuple[View[Any], ...]:
        return tuple(table.for_others(stack) for table in getattr(self, f"additional_{kind}", ()))


class HeldTables:
    """Tables whose locks a block holds: for reading only, or for writing, where layers that come and go are a `batch`.

    After the block they are as `tables`, which take locks again: what was made in the block can be used after it.
    """

    def __init__(
        self, tables: AnyTables, views: Views, editors: Editors | None = None, batch: LayerBatch | None = None
    ) -> None:
        self._tables = tables
        self._views: Views | None = views
        self._editors = editors
        self._batch = batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._views = self._editors = self._batch = None

    @property
    def batch(self) -> LayerBatch | None:
        """The batch of the block, if it goes on and may write."""
        return self._batch if self._views is not None else self._tables.batch

    @contextmanager
    def reading(self, *kinds: str) -> Iterator[Views]:
        """Give the views that are held."""
        if self._views is not None:
            yield self._views
            return
        with self._tables.reading(*kinds) as views:
            yield views

    @contextmanager
    def writing(self, *kinds: str, also_reading: tuple[str, ...] = ()) -> Iterator[Editors]:
        """Give the editors that are held. Raises LockOrder if only shared locks are."""
        if self._editors is not None:
            yield self._editors
            return
        if self._views is not None:
            raise LockOrder("the store is held for reading here; use store.writing()")
        with self._tables.writing(*kinds, also_reading=also_reading) as editors:
            yield editors


AnyTables = Tables | HeldTables
