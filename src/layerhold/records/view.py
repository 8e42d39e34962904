"""The records of a table, to be looked at: by ID, by name, by what they hold.

What other stores have, which are only read, is looked up behind what is in the table. A row becomes a record when it is
asked for.
"""

from __future__ import annotations

import os

from layerhold.errors import DamagedFile, StorageError, StorePassedOver
from layerhold.records.codec import KEYS, decode
from layerhold.values import Generic, TypeVar, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from layerhold.records.rows import Row, Rows

    R = TypeVar("R", bound=Value)
else:
    R = None


class Unread(Generic[R]):
    """A record that nobody has looked at yet: its ID and names are known, the rest is made when it is asked for."""

    __slots__ = ("_row", "_view", "id")

    def __init__(self, id: str, row: Row, view: View[R]) -> None:
        self.id = id
        self._row = row
        self._view = view

    @property
    def names(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self._row.names())

    def text(self, key: str) -> str:
        """Give the text under `key` of the JSON, "" if there is none. Raises DamagedFile."""
        row = self._row
        if row.json is None or type(value := row.json.get(key, "")) is not str:
            return getattr(self.read(), KEYS[self._view._kind][key].field)  # type: ignore[no-any-return]
        return value

    def read(self) -> R:
        """Give the record. Raises DamagedFile."""
        return self._view._value(self._row)


class View(Generic[R]):
    """The records, as long as the lock is held. IDs and names are exact unless said otherwise.

    What is asked for is looked up here first, then in each of `others`, the views of stores that are only read. One of
    these that cannot be read raises why once it is looked into.
    """

    def __init__(
        self,
        kind: type[R],
        paths: Sequence[str],
        rows: Rows,
        *,
        read_only: bool = False,
        others: tuple[View[R], ...] = (),
    ) -> None:
        self._kind = kind
        self._paths = paths
        self._read_only = read_only
        self.rows = rows
        self.others = others

    @property
    def own(self) -> View[R]:
        """The same records without those of the others."""
        return self.joined(()) if self.others else self

    def joined(self, others: tuple[View[R], ...]) -> View[R]:
        """Give a view of the same records, with `others` behind them."""
        return View(self._kind, self._paths, self.rows, read_only=self._read_only, others=others)

    def get(self, id: str) -> R | None:
        """Give the record with this ID."""
        if not self.rows.is_shown(id):
            return self._in_others(lambda other: other.get(id))
        return self._value(self.rows.by_id[id])

    def by_name(self, name: str) -> R | None:
        """Give the record with this name."""
        id = self.rows.names().get(name)
        return self._in_others(lambda other: other.by_name(name)) if id is None else self.get(id)

    def find(self, ref: str) -> R | None:
        """Give the record with this ID, or this name, or the one whose ID begins so (pkg/truncindex of Go)."""
        id = ref if ref in self.rows.by_id else self.rows.names().get(ref)
        if id is None and ref:
            matching = [id for id, _row in self.rows.shown() if id.startswith(ref) and " " not in id]
            id = matching[0] if len(matching) == 1 else None
        return self._in_others(lambda other: other.find(ref)) if id is None else self.get(id)

    def of_others(self) -> list[R]:
        """Give the records of the others; one that cannot be read is passed over, with a warning (StorePassedOver)."""
        found: list[R] = []
        for other in self.others:
            try:
                found += list(other)
            except (StorageError, OSError) as error:
                import warnings

                store = os.path.dirname(os.path.dirname(other._paths[0]))
                warnings.warn(f"store {store} is passed over: {error}", StorePassedOver, stacklevel=4)
        return found

    def _in_others(self, look: Callable[[View[R]], R | None]) -> R | None:
        for other in self.others:
            if (found := look(other)) is not None:
                return found
        return None

    def where(self, key: str, value: str, *, or_among: str = "") -> list[R]:
        """Give the records with the text `value` under `key` of the JSON, without making values of the others.

        Those, too, that have it in the list under `or_among`.
        """
        field = KEYS[self._kind][key].field
        matching = [
            row
            for _id, row in self.rows.shown()
            if (getattr(row.value, field) if row.json is None else row.json.get(key) or "") == value
            or (or_among and value in self._listed(row, or_among))
        ]
        found = [self._value(row) for row in matching]
        for other in self.others:
            found += other.where(key, value, or_among=or_among)
        return found

    def _listed(self, row: Row, key: str) -> Sequence[Any]:
        """Give the list under `key` of a row's JSON; an empty one if there is none."""
        if row.json is None:
            return getattr(row.value, KEYS[self._kind][key].field)  # type: ignore[no-any-return]
        listed = row.json.get(key)
        return listed if type(listed) is list else ()

    def incomplete(self) -> list[R]:
        """Give the records that a crash left half-made."""
        return [self._value(row) for id, row in self.rows.by_id.items() if id in self.rows.half_made]

    def __contains__(self, id: object) -> bool:
        return self.rows.is_shown(id) or any(id in other for other in self.others)

    def __iter__(self) -> Iterator[R]:
        for _id, row in list(self.rows.shown()):
            yield row.value or self._value(row)
        for other in self.others:
            yield from other

    def __len__(self) -> int:
        return len(self.rows.by_id) - len(self.rows.half_made) + sum(map(len, self.others))

    def unread(self) -> list[Unread[R]]:
        """Give the records, not those of the others, without making values of them."""
        return [Unread(id, row, self) for id, row in self.rows.shown()]

    def _value(self, row: Row) -> R:
        if row.value is None:
            assert row.json is not None
            try:
                row.value = decode(self._kind, row.json)
                if row.file or self._read_only:
                    row.value = row.value.replace(origin=self._paths[row.file], read_only=self._read_only)
            except ValueError as error:
                path = self._paths[row.file]
                raise DamagedFile(path, f"record {row.json.get('id')!r}: {error}") from error
        return row.value  # type: ignore[no-any-return]


class Unreadable(View[R]):
    """The records of another store, which cannot be read: all that is asked of them raises why."""

    def __init__(self, paths: Sequence[str], error: Exception) -> None:
        self._paths = paths
        self._error = error

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it never returns
        raise self._error
