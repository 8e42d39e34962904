"""The records of a table, to be changed and saved.

A save encodes the records that changed: the bytes of the others are copied from the text that was read (splice.py). The
file is put together anew only where its order changed, or one of several records with the same ID.
"""

from __future__ import annotations

from layerhold.blocks import contextmanager
from layerhold.records.codec import canonical, encode, parse_records
from layerhold.records.rows import INCOMPLETE, Row
from layerhold.records.splice import Change, spliced
from layerhold.records.view import View
from layerhold.values import TypeVar, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from layerhold.lock import Held
    from layerhold.records.table import Table

    R = TypeVar("R", bound=Value)
else:
    R = None


class Editor(View[R]):
    """The records, to be changed, as long as the exclusive lock is held."""

    def __init__(self, table: Table[R], held: Held, known: View[R]) -> None:
        super().__init__(table.kind, table.files, known.rows.copy())
        self._table = table
        self._held = held
        self._dirty: set[int] = set()
        self._before: dict[str, Row | None] = {}  # what the files have of the records that changed
        self.before_save: Callable[[], None] | None = None  # what is to be on the disk before these records are
        self._apart: set[int] = set()  # files in which more than one record of an ID, or the order, changed

    def put(self, record: R) -> None:
        """Add a record, or put it in the place of the one with its ID. Names that others have become its own."""
        id: str = record.id  # type: ignore[attr-defined]
        names = getattr(record, "names", ())
        if names:
            self._take_names(id, names)
        old = self.rows.by_id.get(id)
        self._set(id, Row(self._table.place(record) if old is None else old.file, None, None, record))

    def remove(self, id: str) -> None:
        """Remove the record with this ID; none is no error."""
        row = self.rows.remove(id)
        if row is None:
            return
        self._before.setdefault(id, row)
        self._dirty.add(row.file)
        if hidden := {other.file for other_id, other in self.rows.shadowed if other_id == id}:
            self._apart |= hidden
            self._dirty |= hidden
            self.rows.shadowed = [(other_id, other) for other_id, other in self.rows.shadowed if other_id != id]

    def save(self, *, settled: bool = True) -> None:
        """Write what changed, now: the mark first, then the files. Raises OSError; then the files are as they were.

        Unless it is to be `settled`, a machine that loses power may have the files as they were before.
        """
        if self._dirty and self.before_save is not None:
            self.before_save()
        if self._dirty:
            contents = {file: self._content(file) for file in sorted(self._dirty)}
            self._table.save(contents, self._held, settled=settled)
            for file, content in contents.items():
                self.rows.texts[file] = content
            self._dirty, self._apart, self._before = set(), set(), {}

    def _content(self, file: int) -> bytes:
        """Give what a file is to have now."""
        text = self.rows.texts[file]
        content = spliced(text, list(self._changes(file))) if text and file not in self._apart else None
        if content is None:
            self._find_bytes(file)
            content = b"[" + b",".join(self._bytes(row) for _id, row in self.rows.of_file(file)) + b"]"
        return content

    def _changes(self, file: int) -> Iterator[Change]:
        for id, before in self._before.items():
            now = self.rows.by_id.get(id)
            if now is not None and now.file == file:
                new: bytes | None = self._bytes(now)
            else:
                new = None
            if before is not None and before.file == file:
                yield Change(old=before.raw if before.json is None else before.json, new=new)
            elif new is not None:
                yield Change(old=None, new=new)

    def _bytes(self, row: Row) -> bytes:
        if row.raw is None:
            row.raw = encode(self._value(row))
        return row.raw

    def _find_bytes(self, file: int) -> None:
        """Find the bytes of all records that did not change."""
        waiting: dict[str, list[Row]] = {}
        for id, row in self.rows.of_file(file):
            if row.raw is None and row.json is not None:
                waiting.setdefault(id, []).append(row)
        for raw, as_spelled in parse_records(self.rows.texts[file], self._paths[file]):
            values = canonical(self._kind, as_spelled)
            for row in waiting.get(values.get("id") or "", ()):
                if row.raw is None and row.json == values:
                    row.raw = raw
                    break

    @contextmanager
    def pending(self, record: R) -> Iterator[None]:
        """Save `record` as incomplete, and as it was put last, when the block ends well.

        If the block fails, the record goes, with all that belongs to it. If only the last save fails, the record stays
        incomplete in the file, for the next writer: what belongs to it is there by then.
        """
        id: str = record.id  # type: ignore[attr-defined]
        flags = {**record.flags, INCOMPLETE: True}  # type: ignore[attr-defined]
        self.put(record.replace(flags=flags))
        self.save(settled=False)  # it is the last save that is to outlive a loss of power
        try:
            yield
        except BaseException:
            self._table.repair(self)
            self.remove(id)
            self.save()
            raise
        last: Any = self._value(self.rows.by_id[id])
        self.put(last.replace(flags={key: flag for key, flag in last.flags.items() if key != INCOMPLETE}))
        self.save()

    def tidy(self) -> None:
        """Remove what a crash left, and let each name have one owner."""
        if self.rows.half_made:
            self._table.repair(self)
        owner = self.rows.names()
        if self.rows.doubled:
            for id, row in list(self.rows.by_id.items()):
                if lost := {name for name in row.names() if owner.get(name, id) != id}:
                    self._strip(id, lost)
            self.rows.doubled = False
        self.save()

    def _take_names(self, id: str, names: Sequence[str]) -> None:
        index = self.rows.names()
        for holder in {index[name] for name in names if index.get(name, id) != id}:
            self._strip(holder, names)

    def _strip(self, id: str, names: Sequence[str] | set[str]) -> None:
        row = self.rows.by_id[id]
        record: Any = self._value(row)
        kept = tuple(name for name in record.names if name not in names)
        self._set(id, Row(row.file, None, None, record.replace(names=kept)))

    def _set(self, id: str, row: Row) -> None:
        old = self.rows.by_id.get(id)
        if old is None and self._before.get(id) is not None:
            self._apart.add(row.file)  # it went, and comes again at the end
        self._before.setdefault(id, old)
        self.rows.put(id, row)
        self._dirty.add(row.file)
