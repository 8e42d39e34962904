"""A locked JSON file of records.

    table.py   when the files are read again, and how they are written: this module
    rows.py    what they hold
    view.py    the records, to be looked at
    editor.py  the records, to be changed

A table may be split over several files (stable first, volatile last); a record is in the file that its `origin` names,
and stays there. The files are read again when the last writer's mark in the lock file, or a file's inode, size or time,
has changed.

Order of a save: the mark in the lock file, then each file that changed, whole, by rename. A crash in between makes
others read once too often. What the block of `writing` changed is saved when it ends well; if it raises, what was not
saved yet is forgotten, and the files are read again next time. Where two records have one name, the first writer takes
it from the earlier one.

Records that a crash left half-made have the flag `incomplete`. Readers are not shown them; `repair` gets the editor and
removes them when the table is next locked for writing, and a reader that meets some tries that first.
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.errors import DriverError, LockOrder, ReadOnlyStore, StorageError
from layerhold.lock import MARK_SIZE
from layerhold.records.rows import read_rows
from layerhold.records.view import Unreadable, View
from layerhold.tree.files import FULL, overwrite, sweep_temporaries, write_atomic
from layerhold.values import Generic, TypeVar, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from layerhold.blocks import ExitStack
    from layerhold.lock import BothLocks, Held, LockFile
    from layerhold.records.editor import Editor
    from layerhold.records.rows import Rows

    R = TypeVar("R", bound=Value)
else:
    R = None

Stamp = tuple[int, int, int] | None  # inode, size, time of a file; None: not there
VOLATILE = "volatile-"  # how the names of files begin that need not outlive the machine's running


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
            if not (self._repairs and view.rows.half_made):
                yield view
                return
        self._try_to_repair()
        with self._lock.shared() as held:
            yield self._fresh(held)

    @contextmanager
    def writing(self) -> Iterator[Editor[R]]:
        """Hold the exclusive lock; what the block changed is saved if it ends well."""
        from layerhold.records.editor import Editor

        with self._lock.exclusive() as held:
            editor = Editor(self, held, self._fresh(held))
            self._known = None
            editor.tidy()
            yield editor
            editor.save()
            editor.rows.sort()
            self._known = self._view(editor.rows), held.last_writer(), self._stamps()

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
        except (OSError, ReadOnlyStore, DriverError):
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
        view = self._view(read_rows(self.kind, self.files))
        if held.exclusive:
            self._sweep()
        self._known = view, mark, stamps
        return view

    def _view(self, rows: Rows) -> View[R]:
        return View(self.kind, self.files, rows, read_only=self.read_only)

    def _sweep(self) -> None:
        """Remove what writers of these files left who were killed."""
        for directory in {os.path.dirname(path) for path in self.files}:
            mine = [os.path.basename(path) for path in self.files if os.path.dirname(path) == directory]
            sweep_temporaries(directory, *mine)

    def _stamps(self) -> list[Stamp]:
        return [_stamp(path) for path in self.files]


def _nothing(_editor: object) -> None:
    return


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
