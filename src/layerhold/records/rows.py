"""What the files of a table hold: a row for each record, by its ID and in the order of the files, and their texts.

Rows stay JSON until somebody looks at them. Views share the rows that were read; an editor changes a copy (`copy`).

Of two records with one ID, Go finds the last in a file, and the one in the earlier of two files. The other is
`shadowed`: it is kept in its file, until the ID is removed. Of two records with one name, the later has it.
"""

from __future__ import annotations

from layerhold.errors import DamagedFile
from layerhold.records.codec import canonical, knows, parse_array, without_collecting
from layerhold.tree.files import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

_TEXT = frozenset((str,))
INCOMPLETE = "incomplete"


class Row:
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


class Rows:
    """All rows of a table that has so many `files`."""

    def __init__(self, files: int) -> None:
        self.by_id: dict[str, Row] = {}
        self.texts = [b""] * files
        self.shadowed: list[tuple[str, Row]] = []  # records whose ID another one has
        self.half_made: set[str] = set()  # the IDs of those that a crash left so: readers are not shown them
        self.doubled = False  # the index has met a name twice
        self._names: dict[str, str] | None = None

    def copy(self) -> Rows:
        """Give the same rows, to be changed."""
        copy = Rows(0)
        copy.by_id = dict(self.by_id)
        copy.texts = list(self.texts)
        copy.shadowed = self.shadowed
        copy.half_made = set(self.half_made)
        copy.doubled = self.doubled
        copy._names = None if self._names is None else dict(self._names)
        return copy

    def shown(self) -> Iterable[tuple[str, Row]]:
        """Give the rows that readers are shown, with their IDs."""
        if not self.half_made:
            return self.by_id.items()
        return [(id, row) for id, row in self.by_id.items() if id not in self.half_made]

    def is_shown(self, id: object) -> bool:
        """Tell whether readers are shown a row with this ID."""
        return id in self.by_id and id not in self.half_made

    def names(self) -> dict[str, str]:
        """The names, each with the ID of the last record that has it: a name moves to its new owner."""
        if self._names is None:
            index: dict[str, str] = {}
            for id, row in [(id, row) for id, row in self.shown() if row.json is None or "names" in row.json]:
                for name in row.names():
                    if index.setdefault(name, id) != id:
                        index[name] = id
                        self.doubled = True
            self._names = index
        return self._names

    def put(self, id: str, row: Row) -> None:
        """Add a row, or put it in the place of the one with its ID."""
        old = self.by_id.get(id)
        if old is not None:
            self._forget_names(id, old)
        self.by_id[id] = row
        if row.incomplete():
            self.half_made.add(id)
            return
        self.half_made.discard(id)
        if self._names is not None:
            self._names.update(dict.fromkeys(row.names(), id))

    def remove(self, id: str) -> Row | None:
        """Remove the row with this ID, and give it."""
        row = self.by_id.pop(id, None)
        if row is not None:
            self._forget_names(id, row)
            self.half_made.discard(id)
        return row

    def of_file(self, file: int) -> Iterator[tuple[str, Row]]:
        """Give the rows of a file, with their IDs; those whose ID a later one has first, so that they stay earlier."""
        for id, row in (*self.shadowed, *self.by_id.items()):
            if row.file == file:
                yield id, row

    def sort(self) -> None:
        """Put the rows in the order of their files."""
        if any(row.file for row in self.by_id.values()):
            self.by_id = dict(sorted(self.by_id.items(), key=lambda item: item[1].file))

    def _forget_names(self, id: str, row: Row) -> None:
        if self._names is not None:
            for name in row.names():
                if self._names.get(name) == id:
                    del self._names[name]


def read_rows(kind: type[Any], paths: Sequence[str]) -> Rows:
    """Read the files; one that is not there is empty. Raises DamagedFile, OSError."""
    rows = Rows(len(paths))
    with without_collecting():
        for file, path in enumerate(paths):
            _read_file(rows, kind, file, path)
    return rows


def _read_file(rows: Rows, kind: type[Any], file: int, path: str) -> None:
    text = rows.texts[file] = read_bytes(path) or b""
    records = parse_array(text, path)
    if not rows.by_id and knows(kind)(set().union(*records)):
        found: dict[Any, Row] = {values.get("id"): Row(file, None, values) for values in records}
        if len(found) == len(records) and _TEXT.issuperset(map(type, found)):
            rows.by_id = found
            flagged = [values["id"] for values in records if "flags" in values]
            rows.half_made = {id for id in flagged if found[id].incomplete()}
            return
    _take_odd(rows, kind, file, path, records)


def _take_odd(rows: Rows, kind: type[Any], file: int, path: str, records: Sequence[dict[str, Any]]) -> None:
    """Take in records of which some may have IDs that others have, or keys that are spelled in another way."""
    earlier = set(rows.by_id)
    for as_spelled in records:
        values = canonical(kind, as_spelled)
        id = values.get("id") or ""
        if type(id) is not str:
            raise DamagedFile(path, f'record {id!r}: "id" is to be a text')
        row = Row(file, None, values)
        if id in earlier:
            rows.shadowed.append((id, row))
            continue
        if id in rows.by_id:
            rows.shadowed.append((id, rows.by_id[id]))
        rows.put(id, row)
