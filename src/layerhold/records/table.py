"""A locked JSON file of records, and its index.

A table may be split over several files (stable first, then volatile); a record stays in the file that it came from. The
files are read again when the last writer's mark in the lock file or a file's inode, size or time has changed. Records
stay JSON until somebody looks at them, and a save encodes those that changed: of the others the bytes are kept.

Order of a save: the mark in the lock file, then each file that changed, whole, by rename. A crash in between makes
others read once too often. What the block of `writing` changed is saved when it ends well; if it raises, what was not
saved yet is forgotten.

Records that a crash left half-made have the flag `incomplete`. Readers are not shown them; `repair` gets the editor and
removes them when the table is next locked for writing, and a reader that meets some tries that first.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from layerhold.errors import DamagedFile
from layerhold.lock import MARK_SIZE
from layerhold.records.codec import decode, encode, parse_array
from layerhold.tree.files import write_atomic
from layerhold.values import Generic, TypeVar, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from layerhold.lock import Held, LockFile, NoLock

    R = TypeVar("R", bound=Value)
else:
    R = None

Stamp = tuple[int, int, int] | None  # inode, size, time of a file; None: not there


class _Row:
    """One record: its JSON, its bytes (None: to be encoded), the file that it is in, and, once asked for, its value."""

    __slots__ = ("file", "json", "raw", "value")

    def __init__(self, file: int, json: dict[str, Any], raw: bytes | None, value: Any = None) -> None:  # noqa: ANN401
        self.file = file
        self.json = json
        self.raw = raw
        self.value = value


class View(Generic[R]):
    """The records, as long as the lock is held. IDs and names are exact unless said otherwise."""

    def __init__(self, kind: type[R], paths: Sequence[str]) -> None:
        self._kind = kind
        self._paths = paths
        self._rows: dict[str, _Row] = {}
        self._names: dict[str, str] | None = None
        self.needs_repair = False

    def get(self, id: str) -> R | None:
        """Give the record with this ID."""
        row = self._rows.get(id)
        return None if row is None or _incomplete(row) else self._value(row)

    def by_name(self, name: str) -> R | None:
        """Give the record with this name."""
        id = self._index().get(name)
        return None if id is None else self.get(id)

    def find(self, ref: str) -> R | None:
        """Give the record with this ID, or this name, or the one whose ID begins so (pkg/truncindex of Go)."""
        found = self.get(ref) or self.by_name(ref)
        if found is not None or not ref or " " in ref:
            return found
        matching = [id for id in self._rows if id.startswith(ref)]
        return self.get(matching[0]) if len(matching) == 1 else None

    def where(self, key: str, value: object) -> list[R]:
        """Give the records in whose JSON `key` is `value`, without making values of the others."""
        return [self._value(row) for row in self._rows.values() if row.json.get(key) == value and not _incomplete(row)]

    def incomplete(self) -> list[R]:
        """Give the records that a crash left half-made."""
        return [self._value(row) for row in self._rows.values() if _incomplete(row)]

    def __contains__(self, id: object) -> bool:
        row = self._rows.get(id) if isinstance(id, str) else None
        return row is not None and not _incomplete(row)

    def __iter__(self) -> Iterator[R]:
        for row in list(self._rows.values()):
            if not _incomplete(row):
                yield self._value(row)

    def __len__(self) -> int:
        return sum(not _incomplete(row) for row in self._rows.values())

    def _value(self, row: _Row) -> R:
        if row.value is None:
            try:
                row.value = decode(self._kind, row.json)
            except ValueError as error:
                path = self._paths[row.file]
                raise DamagedFile(path, f"record {row.json.get('id')!r}: {error}") from error
        return row.value  # type: ignore[no-any-return]

    def _index(self) -> dict[str, str]:
        """The names, each with the ID of the last record that has it: a name moves to its new owner."""
        if self._names is None:
            self._names = {
                name: id for id, row in self._rows.items() if not _incomplete(row) for name in _names_of(row)
            }
        return self._names


class Editor(View[R]):
    """The records, to be changed, as long as the exclusive lock is held."""

    def __init__(self, table: Table[R], held: Held) -> None:
        super().__init__(table.kind, table.files)
        self._table = table
        self._held = held
        self._dirty: set[int] = set()

    def put(self, record: R) -> None:
        """Add a record, or put it in the place of the one with its ID. Names that others have become its own."""
        id = record.id  # type: ignore[attr-defined]
        old = self._rows.get(id)
        names = getattr(record, "names", ())
        if names:
            self._take_names(id, names)
        file = self._table.place(record) if old is None else old.file
        row = _Row(file, {}, None, record)
        # What look-ups read from the JSON of a row, without encoding all of it.
        row.json = _glimpse(record)
        if self._names is not None and old is not None:
            for name in _names_of(old):
                if self._names.get(name) == id:
                    del self._names[name]
        self._rows[id] = row
        if self._names is not None and not _incomplete(row):
            self._names.update(dict.fromkeys(names, id))
        self._dirty.add(file)

    def remove(self, id: str) -> None:
        """Remove the record with this ID; none is no error."""
        row = self._rows.pop(id, None)
        if row is None:
            return
        if self._names is not None:
            for name in _names_of(row):
                if self._names.get(name) == id:
                    del self._names[name]
        self._dirty.add(row.file)

    def save(self) -> None:
        """Write what changed, now: the mark first, then the files. Raises OSError; then the files are as they were."""
        if self._dirty:
            self._table.save(self, self._held, self._dirty)
            self._dirty = set()

    @contextmanager
    def pending(self, record: R) -> Iterator[None]:
        """Save `record` as incomplete, and as it is when the block ends well; if it fails, the record is gone."""
        flags = {**record.flags, "incomplete": True}  # type: ignore[attr-defined]
        self.put(record.replace(flags=flags))
        self.save()
        try:
            yield
        except BaseException:
            self.remove(record.id)  # type: ignore[attr-defined]
            self.save()
            raise
        self.put(record)
        self.save()

    def _take_names(self, id: str, names: Sequence[str]) -> None:
        index = self._index()
        for holder in {index[name] for name in names if index.get(name, id) != id}:
            row = self._rows[holder]
            other: Any = self._value(row)
            self._rows[holder] = stripped = _Row(row.file, {}, None, None)
            stripped.value = other.replace(names=tuple(name for name in other.names if name not in names))
            stripped.json = _glimpse(stripped.value)
            self._dirty.add(row.file)


class Table(Generic[R]):
    """A table of records of `kind` under `lock`, in `files`.

    `place` says in which of the files a new record goes. `repair` is called with the editor when there are incomplete
    records.
    """

    def __init__(
        self,
        kind: type[R],
        lock: LockFile | NoLock,
        files: Sequence[str],
        *,
        place: Callable[[R], int] | None = None,
        repair: Callable[[Editor[R]], None] | None = None,
    ) -> None:
        self.kind = kind
        self.files = files
        self.place = place or _first
        self._lock = lock
        self._repair = repair
        self._known: View[R] | None = None
        self._mark = b""
        self._stamps: list[Stamp] = []

    @contextmanager
    def reading(self) -> Iterator[View[R]]:
        """Hold the shared lock; what the block gets is fresh."""
        if self._is_to_be_repaired():
            try:
                with self.writing():
                    pass
            except OSError:
                # A disk that is full, or a store that may not be written: incomplete records are just not shown.
                pass
        with self._lock.shared() as held:
            yield self._fresh(held)

    @contextmanager
    def writing(self) -> Iterator[Editor[R]]:
        """Hold the exclusive lock; what the block changed is saved if it ends well."""
        with self._lock.exclusive() as held:
            editor = Editor(self, held)
            known = self._fresh(held)
            self._known = None
            editor._rows = dict(known._rows)
            if known.needs_repair:
                self._tidy(editor)
            try:
                yield editor
                editor.save()
            except BaseException:
                self._known = None
                raise
            self._remember(editor, held)

    def save(self, editor: Editor[R], held: Held, dirty: set[int]) -> None:
        """Write the files in `dirty`, for an editor."""
        held.record_write()
        for file in sorted(dirty):
            raws = []
            for row in editor._rows.values():
                if row.file == file:
                    if row.raw is None:
                        row.raw = encode(row.value)
                    raws.append(row.raw)
            write_atomic(self.files[file], b"[" + b",".join(raws) + b"]", sync=file == 0)

    def _is_to_be_repaired(self) -> bool:
        if self._repair is None:
            return False
        with self._lock.shared() as held:
            return self._fresh(held).needs_repair

    def _fresh(self, held: Held) -> View[R]:
        mark = held.last_writer()
        stamps = [_stamp(path) for path in self.files]
        if self._known is None or len(mark) < MARK_SIZE or mark != self._mark or stamps != self._stamps:
            self._known = None
            self._known = self._load()
            self._mark, self._stamps = mark, stamps
        return self._known

    def _load(self) -> View[R]:
        view = View(self.kind, self.files)
        for file, path in enumerate(self.files):
            earlier = set(view._rows) if file else set()
            for raw, values in parse_array(_content(path), path):
                id = values.get("id", "")
                if not isinstance(id, str):
                    raise DamagedFile(path, f'"id" is to be a text, not {id!r}')
                if id in earlier:
                    continue
                row = _Row(file, values, raw)
                view._rows[id] = row
                view.needs_repair = view.needs_repair or _incomplete(row)
        return view

    def _tidy(self, editor: Editor[R]) -> None:
        """Let the records be removed that a crash left incomplete."""
        if self._repair is not None:
            self._repair(editor)
            editor.save()

    def _remember(self, editor: Editor[R], held: Held) -> None:
        view = View(self.kind, self.files)
        view._rows = editor._rows
        view._names = editor._names
        view.needs_repair = any(_incomplete(row) for row in view._rows.values())
        self._known = view
        self._mark = held.last_writer()
        self._stamps = [_stamp(path) for path in self.files]


def _first(_record: object) -> int:
    return 0


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _incomplete(row: _Row) -> bool:
    flags = row.json.get("flags")
    return type(flags) is dict and flags.get("incomplete") is True


def _names_of(row: _Row) -> Sequence[str]:
    names = row.json.get("names")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple) else ()


def _glimpse(record: Any) -> dict[str, Any]:  # noqa: ANN401
    """What look-ups read from a row's JSON, for a record that is not encoded yet."""
    known = ("id", "names", "flags", "parent", "image", "layer")
    return {name: getattr(record, name) for name in known if hasattr(record, name)}
