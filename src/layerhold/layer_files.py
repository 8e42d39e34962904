"""The files of layers, wherever they are: the driver's, and those beside `layers.json`.

    <graphroot>/<driver>/...                       the driver's
    <graphroot>/<driver>-layers/<id>.tar-split.gz  how the layer's tar was put together
    <graphroot>/<driver>-layers/<id>/              its big data
    <graphroot>/<driver>-layers/tmp/               aside: lock-<n>, temp-dir-<n>/; notes of batches: .batch-<n>

A layer goes in three steps: its record is saved as incomplete, its files are moved aside, the record is removed. The
moves are renames, so the locks are held briefly; what was moved aside is deleted after they are released. A crash
before the last step leaves an incomplete record, and the next writer takes the three steps again.
"""

from __future__ import annotations

import os

from layerhold.blocks import ExitStack, contextmanager
from layerhold.drivers.base import is_safe
from layerhold.linux import locks
from layerhold.tree.durable import settle_names
from layerhold.tree.files import FULL
from layerhold.tree.trash import Aside, Shredder
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerhold.drivers.base import Driver
    from layerhold.progress import Meter
    from layerhold.records.editor import Editor
    from layerhold.records.model import LayerRecord
    from layerhold.tree.trash import Bin

NOTE = ".batch-"  # how the names of notes begin (layer_batches.py)


class Bins(Value):
    """Where removed layers go until the locks are released: one for each file system, since they are renamed."""

    driver: Bin
    beside: Bin


_NO_ROOM = Bins(driver=Shredder(), beside=Shredder())


class LayerFiles:
    """Where the files of layers are, and how they go. `directory` is `<graphroot>/<driver>-layers`.

    `of_images` and `volatile` are the files for records of layers that are not written to, and of those that need not
    outlive the machine's running; "" is the first file of the table.
    """

    def __init__(self, driver: Driver, directory: str, *, of_images: str = "", volatile: str = "") -> None:
        self.driver = driver
        self.directory = directory
        self.of_images = of_images
        self.volatile = volatile
        self.aside = Aside(os.path.join(directory, "tmp"))

    def split(self, id: str, home: str = "") -> str:
        """Say where the tar-split file of layer `id` is; `home` is another store's `<driver>-layers`."""
        return os.path.join(home or self.directory, f"{id}.tar-split.gz")

    def data(self, id: str) -> str:
        """Say where the big data of layer `id` is."""
        return os.path.join(self.directory, id)

    @contextmanager
    def bins(self, meter: Meter | None = None) -> Iterator[Bins]:
        """Open the bins; enter this before taking locks, so that emptying them happens after the locks are released.

        The meter counts what is deleted then.
        """
        with ExitStack() as stack:
            try:
                of_driver = stack.enter_context(self.driver.trash(meter))
                bins = Bins(driver=of_driver, beside=stack.enter_context(self.aside.open(meter)))
            except OSError as error:
                if error.errno not in FULL:
                    raise
                bins = _NO_ROOM
            yield bins

    def remove(self, layers: Editor[LayerRecord], ids: Sequence[str], bins: Bins) -> None:
        """Remove layers, records and files; the caller knows that nobody needs them. Children come before parents."""
        for id in ids:
            if (record := layers.get(id)) is not None:
                layers.put(record.replace(flags={**record.flags, "incomplete": True}))
        try:
            layers.save()
        except OSError as error:
            if error.errno not in FULL:
                raise
            bins = _NO_ROOM  # the files go first, and make room for saving that they have gone
        for id in ids:
            self.take(id, bins)
            layers.remove(id)
        for home in {os.path.dirname(self.driver.path(id)) for id in ids if self._is_safe(id)}:
            settle_names(home)  # or a loss of power may bring back files that no record speaks of
        layers.save()

    def take(self, id: str, bins: Bins) -> None:
        """Move all files of layer `id` into the bins; none is no error. The layers' lock is held exclusively."""
        if self._is_safe(id):
            self.driver.unmount(id)
            self.driver.remove(id, bins.driver)
            bins.beside.take(self.split(id))
            bins.beside.take(self.data(id))

    def _is_safe(self, id: str) -> bool:
        """Tell whether `id` names a layer's files: a damaged record's may lead out of here."""
        return is_safe(id, self.driver.reserved)

    def repair(self, layers: Editor[LayerRecord]) -> None:
        """Remove the layers that a crash left half-made or half-removed."""
        incomplete = [record.id for record in layers.incomplete()]
        if incomplete:
            with self.bins() as bins:
                self.remove(layers, incomplete, bins)

    def notes_left(self) -> list[str]:
        """Give the paths of the notes of batches whose writers are gone."""
        try:
            names = os.listdir(self.aside.base)
        except FileNotFoundError:
            return []
        paths = [os.path.join(self.aside.base, name) for name in names if name.startswith(NOTE)]
        return [path for path in paths if _is_left(path)]

    def sweep(self) -> None:
        """Remove what a crash left aside; each place has its own lock, so no lock of the store is needed."""
        self.aside.sweep()


def _is_left(path: str) -> bool:
    """Tell whether the file is there, and nobody has it locked."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return locks.lock(fd, exclusive=True, wait=False)
    finally:
        os.close(fd)
