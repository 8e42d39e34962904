"""Datasets aside: those of layers in the making, and those of layers that are removed.

    <home>/tempdirs/lock-<n>, temp-dir-<n>/   who has datasets aside (tree/trash.py)
    .../<m>-made                              one in the making; holds the name of the layer that it is a clone of
    .../<m>-gone                              one to be destroyed
    .../<m>-replaced                          the same, of the layer whose name is in it, which another one has now
    <top>/layerhold-aside-<home>-<n>-<m>      the dataset; <home> is a number for this home, since others may be there

Datasets are renamed into their places, and out of them. A crash leaves notes: the next sweep destroys their datasets,
or puts back the one that was replaced by nothing yet. A dataset that is in use when it is to be destroyed is left
without a note, and destroyed by a later sweep; so is one whose note a loss of power took.
"""

from __future__ import annotations

import os
import zlib

from layerhold.drivers import zfs_mounts
from layerhold.drivers.base import ERASE, Contents
from layerhold.drivers.zfs_datasets import ASIDE, CommandFailed
from layerhold.errors import DriverError
from layerhold.tree.durable import sync_tree
from layerhold.tree.files import read_bytes, remove_tree, write_atomic
from layerhold.tree.trash import Aside, TempDir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from layerhold.drivers.zfs_datasets import Datasets
    from layerhold.progress import Meter
    from layerhold.tree.trash import Bin

_MADE, _GONE, _REPLACED = "made", "gone", "replaced"


class DatasetsAside:
    """The datasets aside that belong to one home."""

    def __init__(self, home: str, datasets: Datasets) -> None:
        self.datasets = datasets
        self._aside = Aside(os.path.join(home, "tempdirs"), remove=self._remove)
        self._prefix = f"{ASIDE}{zlib.crc32(os.fsencode(os.path.realpath(home))):08x}-"

    def open(self, meter: Meter | None = None) -> AbstractContextManager[TempDir]:
        """Make a directory aside; its datasets go with it at the end of the block."""
        return self._aside.open(meter)

    def made(self, temporary: TempDir, source: str) -> str:
        """Note a dataset that is about to be made; give the note. `source`: the layer that it is a clone of, or ""."""
        return _noted(temporary, _MADE, source)

    def name(self, note: str) -> str:
        """Name the dataset that a note is about."""
        number = os.path.basename(os.path.dirname(note)).removeprefix("temp-dir-")
        return f"{self._prefix}{number}-{os.path.basename(note).partition('-')[0]}"

    def take(self, id: str, trash: Bin) -> None:
        """Rename the dataset of a layer aside; where the disk is too full for a note of it, destroy it at once."""
        if isinstance(trash, TempDir):
            self.datasets.rename(id, self.name(_noted(trash, _GONE)))
        else:
            gone = f"{self._prefix}full-{int.from_bytes(os.urandom(5), 'big')}"
            self.datasets.rename(id, gone)
            self.datasets.destroy(gone)

    def put(self, note: str, id: str, temporary: TempDir) -> None:
        """Give the dataset of a note the name of layer `id`. A layer that has it goes with what is aside."""
        made = self.name(note)
        try:
            self.datasets.rename(made, id)
        except CommandFailed as error:
            if not (error.says("already exists") and self.datasets.is_layer(id)):
                raise
            old = self.name(_noted(temporary, _REPLACED, id))
            self.datasets.rename(id, old)
            try:
                self.datasets.rename(made, id)
            except DriverError:
                self.datasets.rename(old, id)
                raise
        os.unlink(note)

    def sweep(self, found: Sequence[str]) -> None:
        """Destroy what a crash left, and those of `found`, the datasets aside that there are, that nobody has."""
        self._aside.sweep()
        for name in found:
            number = name.removeprefix(self._prefix).partition("-")[0]
            if name.startswith(self._prefix) and not os.path.exists(f"{self._aside.base}/temp-dir-{number}"):
                self.datasets.destroy(name)

    def _remove(self, directory: str, meter: Meter | None = None) -> None:
        try:
            notes = os.listdir(directory)
        except FileNotFoundError:
            notes = []
        for note in sorted(notes, key=lambda note: not note.endswith(_REPLACED)):
            self._finish(os.path.join(directory, note))
        remove_tree(directory, meter)

    def _finish(self, note: str) -> None:
        name, about = self.name(note), (read_bytes(note) or b"").decode()
        if note.endswith(_REPLACED) and not self.datasets.exists(about):
            self._put_back(name, about)
            return
        self.datasets.destroy(name)
        if note.endswith(_MADE) and about:
            self.datasets.drop_snapshot(about, name)

    def _put_back(self, name: str, id: str) -> None:
        try:
            self.datasets.rename(name, id)
        except CommandFailed as error:
            if not error.is_missing:  # it had not been renamed yet
                raise


class DatasetBuild:
    """A layer's dataset in the making, which is to become `id`."""

    def __init__(self, aside: DatasetsAside, temporary: TempDir, note: str, id: str) -> None:
        self._aside, self._temporary = aside, temporary
        self._note, self._id = note, id
        self._fd = zfs_mounts.shown(aside.datasets.full(aside.name(note)))
        self.contents = Contents(path=zfs_mounts.tree(self._fd), deletions=ERASE)

    def sync(self, *, filled: bool = True) -> None:  # noqa: ARG002 - a mere clone costs nothing to sync
        """Make the files durable; the dataset itself is since it was made."""
        sync_tree(self.contents.path)

    def publish(self) -> None:
        """Unmount the dataset, and give it the layer's name."""
        self.close()
        self._aside.put(self._note, self._id, self._temporary)

    def close(self) -> None:
        """Unmount it; again is no error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _noted(temporary: TempDir, kind: str, about: str = "") -> str:
    path = temporary.place(kind)
    write_atomic(path, about.encode(), sync=kind == _REPLACED)
    return path
