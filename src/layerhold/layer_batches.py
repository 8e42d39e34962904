"""Batches: layers that are made and removed in one block of `store.writing()`, saved and synced once for all.

    made       its ID is noted, the files are moved into place, the record is put
    removed    its ID is noted, the record goes
    settled    the file systems are synced, the records saved, the files of what was removed moved aside; the note goes

A batch is settled when its block ends, also by an error: what was finished in it stays, and so do names, metadata and
the like that were changed in the block. It is settled before anything else of the block is saved, too, since images and
containers may speak of its layers. If that fails, it is tried again with the next save, and at the end of the block.

The note is `<driver>-layers/tmp/.batch-<n>`: IDs, each with a NUL behind it, in a file that is locked while its writer
lives. One that is killed in a batch leaves the note, and with it files of layers that no record speaks of, or not
any more. `clear_up` removes those; what has a record stays. (A machine that loses power may lose a note before it loses
such files. They are garbage then.)
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.drivers.base import is_safe
from layerhold.layer_files import NOTE
from layerhold.linux import locks
from layerhold.tree.durable import sync_tree
from layerhold.tree.files import FULL, make_dirs, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from layerhold.layer_files import Bins, LayerFiles
    from layerhold.records.editor import Editor
    from layerhold.records.model import LayerRecord
    from layerhold.tables import Editors


class LayerBatch:
    """The layers that come and go in a block; all locks are held exclusively."""

    def __init__(self, files: LayerFiles, editors: Editors, bins: Bins) -> None:
        self._files = files
        self._editors = editors
        self._layers = editors.layers
        self._bins = bins
        self._note: _Note | None = None
        self._removed: dict[str, None] = {}
        self._homes: set[str] = set()
        for editor in (editors.layers, editors.images, editors.containers):
            editor.before_save = self.settle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self.settle()
        finally:
            if self._note is not None:
                self._note.close()
        for editor in (self._layers, self._editors.images, self._editors.containers, self._editors.mounts):
            editor.save()

    @contextmanager
    def adding(self, record: LayerRecord) -> Iterator[None]:
        """Put `record`, whose files the block moves into place. If it fails, they are removed."""
        if record.id in self._removed:
            self.settle()  # or the files that come would go with those that were there
        self._noted(record.id)
        try:
            yield
        except BaseException:
            self._files.take(record.id, self._bins)
            raise
        self._homes.add(os.path.dirname(self._files.driver.path(record.id)))
        self._layers.put(record)

    def remove(self, id: str) -> None:
        """Remove a layer; the caller knows that nobody needs it."""
        try:
            self._noted(id)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # Something can be removed from a disk that is full, without a note.
            self._files.remove(self._layers, [id], self._bins)
            return
        self._removed[id] = None
        self._layers.remove(id)

    def settle(self) -> None:
        """Make all of it durable. Raises OSError; then the note stays, and the records are as they were."""
        note, self._note = self._note, None  # saving the layers asks for this again
        if note is None:
            return
        try:
            for home in {self._files.directory, *self._homes}:
                sync_tree(home)
            self._layers.save()
            for id in self._removed:
                self._files.take(id, self._bins)
            note.remove()
        except BaseException:
            self._note = note
            raise
        self._removed, self._homes = {}, set()
        note.close()

    def _noted(self, id: str) -> None:
        if self._note is None:
            self._note = _Note(self._files.aside.base)
        if is_safe(id, self._files.driver.reserved):
            self._note.add(id)


class _Note:
    """The IDs of the layers of a batch, in a file in `directory`."""

    def __init__(self, directory: str) -> None:
        make_dirs(directory)
        self._path = os.path.join(directory, NOTE + os.urandom(8).hex())
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        locks.lock(self._fd, exclusive=True, wait=False)
        self._size = 0

    def add(self, id: str) -> None:
        """Note an ID whole, or not at all. Raises OSError."""
        rest = os.fsencode(id) + b"\0"
        size = self._size + len(rest)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BaseException:
            os.ftruncate(self._fd, self._size)
            raise
        self._size = size

    def remove(self) -> None:
        os.unlink(self._path)

    def close(self) -> None:
        os.close(self._fd)


def clear_up(files: LayerFiles, layers: Editor[LayerRecord], bins: Bins) -> None:
    """Remove what a crash left of batches. The layers' lock is held exclusively."""
    for path in files.notes_left():
        for id in (read_bytes(path) or b"").split(b"\0")[:-1]:
            if (layer := os.fsdecode(id)) not in layers.own:
                files.take(layer, bins)
        os.unlink(path)
