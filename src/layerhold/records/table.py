"""A locked JSON file of records, and its index.

A table may be split over several files (stable first, volatile last); a record is in the file that its `origin` names,
and stays there. What other stores have, which are only read, can be looked up behind what is in the table. The
files are read again when the last writer's mark in the lock file, or a file's inode, size or time, has changed. Records
stay JSON until somebody looks at them, and a save encodes those that changed: the bytes of the others are copied from
the text that was read (splice.py).

Order of a save: the mark in the lock file, then each file that changed, whole, by rename. A crash in between makes
others read once too often. What the block of `writing` changed is saved when it ends well; if it raises, what was not
saved yet is forgotten, and the files are read again next time.

Of two records with one ID, Go finds the last in a file, and the one in the earlier of two files. The other is kept in
its file, until the ID is removed. Of two records with one name, the later has it: readers find that one, and the first
writer takes the name from the earlier one.

Records that a crash left half-made have the flag `incomplete`. Readers are not shown them; `repair` gets the editor and
removes them when the table is next locked for writing, and a reader that meets some tries that first.
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.errors import DamagedFile, LockOrder, ReadOnlyStore, StorageError, StorePassedOver
from layerhold.lock import MARK_SIZE
from layerhold.records.codec import (
    KEYS,
    canonical,
    decode,
    encode,
    knows,
    parse_array,
    parse_records,
    without_collecting,
)
from layerhold.records.splice import Change, spliced
from layerhold.tree.files import FULL, overwrite, read_bytes, sweep_temporaries, write_atomic
from layerhold.values import Generic, TypeVar, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from layerhold.blocks import ExitStack
    from layerhold.lock import BothLocks, Held, LockFile

    R = TypeVar("R", bound=Value)
else:
    R = None

_TEXT = frozenset((str,))
Stamp = tuple[int, int, int] | None  # inode, size, time of a file; None: not there
INCOMPLETE = "incomplete"
VOLATILE = "volatile-"  # how the names of files begin that need not outlive the machine's running


class _Row:
    """One record in a file: its JSON as it was read, or its value, or both; its bytes, if they were made here.

    `json` is None for what was put here.
    """

    __slots__ = ("file", "json", "raw", "value")

    def __init__(self, file: int, raw: bytes | None, json: dict[str, Any] | None, value: Any = None) -> None:  # noqa: ANN401
        self.file = file
        self.raw = raw
        self.json = json
        self.value = value

    def names(self) -> Sequence[str]:
        """Give the names, without making a value of the JSON."""
        if self.json is None:
            return getattr(self.value, "names", ())
        names = self.json.get("names")
        return [name for name in names if isinstance(name, str)] if type(names) is list else ()

    def incomplete(self) -> bool:
        """Tell whether a crash left the record half-made."""
        flags = getattr(self.value, "flags", None) if self.json is None else self.json.get("flags")
        return type(flags) is dict and flags.get(INCOMPLETE) is True


class Unread(Generic[R]):
    """A record that nobody has looked at yet: its ID and names are known, the rest is made when it is asked for."""

    __slots__ = ("_row", "_view", "id")

    def __init__(self, id: str, row: _Row, view: View[R]) -> None:
        self.id = id
        self._row = row
        self._view = view

    @property
    def names(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self._row.names())

    def read(self) -> R:
        """Give the record. Raises DamagedFile."""
        return self._view._value(self._row)


class View(Generic[R]):
    """The records, as long as the lock is held. IDs and names are exact unless said otherwise.

    What is asked for is looked up here first, then in each of `others`, the views of stores that are only read. One of
    these that cannot be read raises why once it is looked into.
    """

    others: tuple[View[R], ...] = ()

    def __init__(self, kind: type[R], paths: Sequence[str], *, read_only: bool = False) -> None:
        self._kind = kind
        self._paths = paths
        self._read_only = read_only
        self._rows: dict[str, _Row] = {}
        self._texts = [b""] * len(paths)  # the files
        self._shadowed: list[tuple[str, _Row]] = []  # records whose ID another one has
        self._half_made: set[str] = set()
        self._names: dict[str, str] | None = None
        self._doubled = False  # the index has met a name twice

    @property
    def own(self) -> View[R]:
        """The same records without those of the others."""
        return self.joined(()) if self.others else self

    def joined(self, others: tuple[View[R], ...]) -> View[R]:
        """Give a view of the same records, with `others` behind them."""
        view: View[R] = View(self._kind, self._paths, read_only=self._read_only)
        view._rows, view._shadowed, view._half_made = self._rows, self._shadowed, self._half_made
        view._names, view._doubled, view.others = self._names, self._doubled, others
        view._texts = self._texts
        return view

    def get(self, id: str) -> R | None:
        """Give the record with this ID."""
        row = self._rows.get(id)
        if row is None or id in self._half_made:
            return self._in_others(lambda other: other.get(id))
        return self._value(row)

    def by_name(self, name: str) -> R | None:
        """Give the record with this name."""
        id = self._index().get(name)
        return self._in_others(lambda other: other.by_name(name)) if id is None else self.get(id)

    def find(self, ref: str) -> R | None:
        """Give the record with this ID, or this name, or the one whose ID begins so (pkg/truncindex of Go)."""
        id = ref if ref in self._rows else self._index().get(ref)
        if id is None and ref:
            matching = [id for id in self._rows if id.startswith(ref) and " " not in id and id not in self._half_made]
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

    def where(self, key: str, value: str) -> list[R]:
        """Give the records with the text `value` under `key` of the JSON, without making values of the others."""
        field = KEYS[self._kind][key].field
        found = []
        for id, row in self._rows.items():
            has = getattr(row.value, field) if row.json is None else row.json.get(key) or ""
            if has == value and id not in self._half_made:
                found.append(self._value(row))
        for other in self.others:
            found += other.where(key, value)
        return found

    def incomplete(self) -> list[R]:
        """Give the records that a crash left half-made."""
        return [self._value(row) for id, row in self._rows.items() if id in self._half_made]

    def __contains__(self, id: object) -> bool:
        return (id in self._rows and id not in self._half_made) or any(id in other for other in self.others)

    def __iter__(self) -> Iterator[R]:
        for id, row in list(self._rows.items()):
            if id not in self._half_made:
                yield row.value or self._value(row)
        for other in self.others:
            yield from other

    def __len__(self) -> int:
        return len(self._rows) - len(self._half_made) + sum(map(len, self.others))

    def unread(self) -> list[Unread[R]]:
        """Give the records, not those of the others, without making values of them."""
        return [Unread(id, row, self) for id, row in self._rows.items() if id not in self._half_made]

    def _value(self, row: _Row) -> R:
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

    def _index(self) -> dict[str, str]:
        """The names, each with the ID of the last record that has it: a name moves to its new owner."""
        if self._names is None:
            index: dict[str, str] = {}
            for id, row in self._rows.items():
                if id not in self._half_made:
                    for name in row.names():
                        if index.setdefault(name, id) != id:
                            index[name] = id
                            self._doubled = True
            self._names = index
        return self._names


class Unreadable(View[R]):
    """The records of another store, which cannot be read: all that is asked of them raises why."""

    def __init__(self, paths: Sequence[str], error: Exception) -> None:
        self._paths = paths
        self._error = error

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it never returns
        raise self._error


class Editor(View[R]):
    """The records, to be changed, as long as the exclusive lock is held."""

    def __init__(self, table: Table[R], held: Held, known: View[R]) -> None:
        super().__init__(table.kind, table.files)
        self._rows = dict(known._rows)
        self._texts = list(known._texts)
        self._shadowed = known._shadowed
        self._half_made = set(known._half_made)
        self._names = None if known._names is None else dict(known._names)
        self._doubled = known._doubled
        self._table = table
        self._held = held
        self._dirty: set[int] = set()
        self._before: dict[str, _Row | None] = {}  # what the files have of the records that changed
        self._apart: set[int] = set()  # files in which more than one record of an ID, or the order, changed

    def put(self, record: R) -> None:
        """Add a record, or put it in the place of the one with its ID. Names that others have become its own."""
        id: str = record.id  # type: ignore[attr-defined]
        names = getattr(record, "names", ())
        if names:
            self._take_names(id, names)
        old = self._rows.get(id)
        self._set(id, _Row(self._table.place(record) if old is None else old.file, None, None, record))
        if self._names is not None and id not in self._half_made:
            self._names.update(dict.fromkeys(names, id))

    def remove(self, id: str) -> None:
        """Remove the record with this ID; none is no error."""
        row = self._rows.pop(id, None)
        if row is None:
            return
        self._before.setdefault(id, row)
        self._forget_names(id, row)
        self._half_made.discard(id)
        self._dirty.add(row.file)
        if self._shadowed:
            self._apart.update(other.file for other_id, other in self._shadowed if other_id == id)
            self._dirty.update(other.file for other_id, other in self._shadowed if other_id == id)
            self._shadowed = [(other_id, other) for other_id, other in self._shadowed if other_id != id]

    def save(self, *, settled: bool = True) -> None:
        """Write what changed, now: the mark first, then the files. Raises OSError; then the files are as they were.

        Unless it is to be `settled`, a machine that loses power may have the files as they were before.
        """
        if self._dirty:
            contents = {file: self._content(file) for file in sorted(self._dirty)}
            self._table.save(contents, self._held, settled=settled)
            for file, content in contents.items():
                self._texts[file] = content
            self._dirty, self._apart, self._before = set(), set(), {}

    def _content(self, file: int) -> bytes:
        """Give what a file is to have now."""
        text = self._texts[file]
        content = spliced(text, list(self._changes(file))) if text and file not in self._apart else None
        if content is None:
            self._find_bytes(file)
            content = _encoded(self, file)
        return content

    def _changes(self, file: int) -> Iterator[Change]:
        for id, before in self._before.items():
            now = self._rows.get(id)
            if now is not None and now.file == file:
                if now.raw is None:
                    now.raw = encode(now.value)
                new: bytes | None = now.raw
            else:
                new = None
            if before is not None and before.file == file:
                yield Change(old=before.raw if before.json is None else before.json, new=new)
            elif new is not None:
                yield Change(old=None, new=new)

    def _find_bytes(self, file: int) -> None:
        """Find the bytes of all records that did not change."""
        waiting: dict[str, list[_Row]] = {}
        for id, row in (*self._shadowed, *self._rows.items()):
            if row.file == file and row.raw is None and row.json is not None:
                waiting.setdefault(id, []).append(row)
        for raw, as_spelled in parse_records(self._texts[file], self._paths[file]):
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
        last: Any = self._value(self._rows[id])
        self.put(last.replace(flags={key: flag for key, flag in last.flags.items() if key != INCOMPLETE}))
        self.save()

    def tidy(self) -> None:
        """Remove what a crash left, and let each name have one owner."""
        if self._half_made:
            self._table.repair(self)
        owner = self._index()
        if self._doubled:
            for id, row in list(self._rows.items()):
                if lost := {name for name in row.names() if owner.get(name, id) != id}:
                    self._strip(id, lost)
            self._doubled = False
        self.save()

    def _take_names(self, id: str, names: Sequence[str]) -> None:
        index = self._index()
        for holder in {index[name] for name in names if index.get(name, id) != id}:
            self._strip(holder, names)

    def _strip(self, id: str, names: Sequence[str] | set[str]) -> None:
        row = self._rows[id]
        record: Any = self._value(row)
        kept = tuple(name for name in record.names if name not in names)
        self._set(id, _Row(row.file, None, None, record.replace(names=kept)))
        if self._names is not None:
            self._names.update(dict.fromkeys(kept, id))

    def _set(self, id: str, row: _Row) -> None:
        old = self._rows.get(id)
        if old is not None:
            self._forget_names(id, old)
        elif self._before.get(id) is not None:
            self._apart.add(row.file)  # it went, and comes again at the end
        self._before.setdefault(id, old)
        self._rows[id] = row
        (self._half_made.add if row.incomplete() else self._half_made.discard)(id)
        self._dirty.add(row.file)

    def _forget_names(self, id: str, row: _Row) -> None:
        if self._names is not None:
            for name in row.names():
                if self._names.get(name) == id:
                    del self._names[name]


class Table(Generic[R]):
    """A table of records of `kind` under `lock`, in `files`; another store's if it is `read_only`.

    `repair` is called with the editor when there are incomplete records.
    """

    def __init__(
        self,
        kind: type[R],
        lock: LockFile | BothLocks,
        files: Sequence[str],
        *,
        repair: Callable[[Editor[R]], None] | None = None,
        read_only: bool = False,
    ) -> None:
        self.kind = kind
        self.files = files
        self.read_only = read_only
        self.repair = repair or _nothing
        self._repairs = repair is not None
        self._lock = lock
        # One tuple, put in place at once: threads that read at the same time may each make it.
        self._known: tuple[View[R], bytes, list[Stamp]] | None = None

    @contextmanager
    def reading(self) -> Iterator[View[R]]:
        """Hold the shared lock; what the block gets is fresh."""
        with self._lock.shared() as held:
            view = self._fresh(held)
            if not (self._repairs and view._half_made):
                yield view
                return
        self._try_to_repair()
        with self._lock.shared() as held:
            yield self._fresh(held)

    @contextmanager
    def writing(self) -> Iterator[Editor[R]]:
        """Hold the exclusive lock; what the block changed is saved if it ends well."""
        with self._lock.exclusive() as held:
            editor = Editor(self, held, self._fresh(held))
            self._known = None
            editor.tidy()
            yield editor
            editor.save()
            self._known = self._view_of(editor), held.last_writer(), self._stamps()

    def for_others(self, stack: ExitStack) -> View[R]:
        """Hold the shared lock until `stack` ends, and give the records, or what raises why they cannot be read."""
        try:
            return stack.enter_context(self.reading())
        except LockOrder:
            raise
        except (StorageError, OSError) as error:
            return Unreadable(self.files, error)

    def place(self, record: R) -> int:
        """Say in which of the files a new record goes."""
        origin: str = getattr(record, "origin", "")
        return self.files.index(origin) if origin else 0

    def save(self, contents: Mapping[int, bytes], held: Held, *, settled: bool = True) -> None:
        """Write what files are to have, for an editor."""
        held.record_write()
        for file, content in contents.items():
            path = self.files[file]
            try:
                volatile = os.path.basename(path).startswith(VOLATILE)
                write_atomic(path, content, sync=not volatile, settled=settled and not volatile)
            except OSError as error:
                # Records can be removed from a disk that is full, too, to make room.
                if error.errno not in FULL or not overwrite(path, content):
                    raise

    def _try_to_repair(self) -> None:
        try:
            with self.writing():
                pass
        except (OSError, ReadOnlyStore):
            # A full disk, or a store that may not be written: a reader is not stopped by it, since incomplete records
            # are just not shown. The next writer gets the error.
            return

    def _fresh(self, held: Held) -> View[R]:
        mark = held.last_writer()
        stamps = self._stamps()
        known = self._known
        marked = len(mark) == MARK_SIZE or self.read_only
        if known is not None and marked and mark == known[1] and stamps == known[2]:
            return known[0]
        self._known = None
        view = self._load()
        if held.exclusive:
            self._sweep()
        self._known = view, mark, stamps
        return view

    def _load(self) -> View[R]:
        view: View[R] = View(self.kind, self.files, read_only=self.read_only)
        with without_collecting():
            for file, path in enumerate(self.files):
                self._load_file(view, file, path)
        return view

    def _load_file(self, view: View[R], file: int, path: str) -> None:
        text = view._texts[file] = read_bytes(path) or b""
        records = parse_array(text, path)
        rows = view._rows
        if not rows and all(map(knows(self.kind), records)):
            found: dict[Any, _Row] = {values.get("id"): _Row(file, None, values) for values in records}
            if len(found) == len(records) and _TEXT.issuperset(map(type, found)):
                view._rows = found
                flagged = [values["id"] for values in records if "flags" in values]
                view._half_made = {id for id in flagged if found[id].incomplete()}
                return
        self._load_odd(view, file, path, records)

    def _load_odd(self, view: View[R], file: int, path: str, records: Sequence[dict[str, Any]]) -> None:
        """Take in records of which some may have IDs that others have, or keys that are spelled in another way."""
        rows = view._rows
        earlier = set(rows)
        for as_spelled in records:
            values = canonical(self.kind, as_spelled)
            id = values.get("id") or ""
            if type(id) is not str:
                raise DamagedFile(path, f'record {id!r}: "id" is to be a text')
            row = _Row(file, None, values)
            if id in earlier:
                view._shadowed.append((id, row))
                continue
            if id in rows:
                view._shadowed.append((id, rows[id]))
                view._half_made.discard(id)
            rows[id] = row
            if "flags" in values and row.incomplete():
                view._half_made.add(id)

    def _sweep(self) -> None:
        """Remove what writers of these files left who were killed."""
        for directory in {os.path.dirname(path) for path in self.files}:
            mine = [os.path.basename(path) for path in self.files if os.path.dirname(path) == directory]
            sweep_temporaries(directory, *mine)

    def _view_of(self, editor: Editor[R]) -> View[R]:
        view = View(self.kind, self.files)
        view._rows, view._shadowed, view._half_made = editor._rows, editor._shadowed, editor._half_made
        view._names, view._doubled, view._texts = editor._names, editor._doubled, editor._texts
        if any(row.file for row in editor._rows.values()):
            view._rows = dict(sorted(editor._rows.items(), key=lambda item: item[1].file))
        return view

    def _stamps(self) -> list[Stamp]:
        return [_stamp(path) for path in self.files]


def _encoded(view: View[Any], file: int) -> bytes:
    """Give the content of a file. Records whose ID a later one has come first, so that they stay the earlier."""
    raws = []
    for row in (*(row for _id, row in view._shadowed), *view._rows.values()):
        if row.file == file:
            if row.raw is None:
                row.raw = encode(view._value(row))
            raws.append(row.raw)
    return b"[" + b",".join(raws) + b"]"


def _nothing(_editor: object) -> None:
    return


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
