"""A store made anew for another driver.

The old store is only read, under shared locks: not even a missing lock file is made in it. The new one is built beside
its place, in `<into>.converting/temp-dir-<n>` (tree/trash.py), and renamed there when it is whole and on the disk; so
what is at `into` is the whole store or nothing, and what a crash left is cleared up by the next attempt.

    layers          each filled from the old one's tar, and compared with it (layer_copies.py); parents first
    images, containers      their records, big data and directories; containers with their layers
    not copied      what other programs keep in the graph root, and all in the run root: it is of this boot

Records keep all that is in them. IDs stay, tar-split files and big data are the same bytes.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from layerhold.blocks import ExitStack, contextmanager
from layerhold.config import Config
from layerhold.drivers import choose, third_party
from layerhold.drivers.overlay_home import unmount_below
from layerhold.errors import DamagedLayer, DriverError, DriverNotSupported, StorageError, StoreUnknown
from layerhold.identifiers import check_id
from layerhold.layer_copies import LayerCopies, Source, Target, is_volatile
from layerhold.layout import Layout
from layerhold.progress import metering
from layerhold.store import Store
from layerhold.tree.copy import copy_tree
from layerhold.tree.durable import sync_directory, sync_tree
from layerhold.tree.files import make_dirs
from layerhold.tree.trash import Aside
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from layerhold.progress import Callback, Meter
    from layerhold.records.model import LayerRecord, Record
    from layerhold.records.view import View
    from layerhold.tables import Editors, Views
    from layerhold.tree.trash import TempDir

_SUFFIX = ".converting"
_OF_OLD = ("zfs.", "dm.")  # options of drivers from which stores are converted, and not to
_TO = ("overlay", "btrfs", "vfs")  # those whose layers lie in the graph root, and so come into their place with it
_ELSEWHERE = "images may have a root of their own, which is to be named, too (--image-store)"


class Conversion(Value):
    """What was made of what: the drivers, the graph root of the new store, and how much there is in it.

    `bytes` is what the layers' tars have together, as far as the records say.
    """

    old_driver: str
    new_driver: str
    graphroot: str
    layers: int
    images: int
    containers: int
    bytes: int


def convert(
    graphroot: str | os.PathLike[str],
    to: str,
    *,
    into: str | os.PathLike[str] | None = None,
    driver: str | None = None,
    imagestore: str | os.PathLike[str] | None = None,
    options: Sequence[str] = (),
    dry_run: bool = False,
    progress: Callback | None = None,
) -> Conversion:
    """Make a store of the driver `to` of the store in `graphroot`, in the directory `into`.

    `into` is not there yet, or empty; it is `<graphroot>-<to>` if it is not named. `driver` is that of the old store,
    if it has layers of several, `imagestore` the root of its images, if they have one of their own; in the new one they
    have not. `options` are for the new one; those that begin with `zfs.` or `dm.` (`zfs.fsname`) are for the old.

    With `dry_run` only say what there is to be converted. `progress` is told how much of the layers is copied
    (`converting`); what it raises ends the conversion, and nothing of it stays. Raises StoreUnknown, DriverError,
    DamagedLayer, DigestMismatch and other StorageErrors (the layer is named), OSError.
    """
    old = os.path.realpath(graphroot)
    new = os.path.abspath(into) if into else f"{old}-{to}"
    if to not in _TO and to not in third_party.names():
        raise DriverNotSupported(f"to convert to {to}", hint="the drivers are: " + ", ".join(_TO))
    name = driver or choose.prior(old)
    if not name or not choose.has_layers(old, name):
        raise StoreUnknown(old, str(graphroot), hint=f"name a graph root with layers of {name or 'some driver'} in it")
    _check_places(old, new)
    layout = Layout(
        driver="overlay" if name == "overlay2" else name,
        graphroot=old,
        runroot="",
        imagestore=os.path.realpath(imagestore) if imagestore else "",
    )
    with layout.open_tables_to_read().reading("layers", "images", "containers") as views:
        found = Conversion(
            old_driver=name,
            new_driver=to,
            graphroot=new,
            layers=len(views.layers),
            images=len(views.images),
            containers=len(views.containers),
            bytes=sum(layer.diff_size for layer in views.layers if layer.diff_size > 0),
        )
        if not dry_run:
            with metering(progress, "converting", total_bytes=found.bytes) as meter:
                _convert(layout, views, found, options, meter)
    return found


def _check_places(old: str, new: str) -> None:
    """See that a store can come to `new`, and that neither is in the other. Raises DriverError."""
    real = os.path.realpath(new)
    if f"{real}/".startswith(f"{old}/") or f"{old}/".startswith(f"{real}/"):
        raise DriverError(f"{new} and the store {old} would be one in the other", hint="name a directory beside it")
    if not os.path.lexists(new):
        return
    if not os.path.isdir(new) or os.path.islink(new) or os.listdir(new):
        raise DriverError(f"{new} is there already, and is no empty directory", hint="name another place for the store")
    if os.path.ismount(new):
        raise DriverError(f"{new} is where something is mounted, and cannot be replaced", hint="name a directory in it")


def _convert(layout: Layout, views: Views, found: Conversion, options: Sequence[str], meter: Meter | None) -> None:
    with _place_beside(found.graphroot) as aside:
        root = aside.place("root")
        with ExitStack() as stack:
            scratch = choose.Place(
                graphroot=aside.place("reading"), runroot=aside.place("reading"), imagestore=layout.imagestore
            )
            of_old = [option for option in options if option.lower().startswith(_OF_OLD)]
            driver = choose.open_to_read(found.old_driver, layout.graphroot, scratch, of_old)
            source = Source(
                driver=driver,
                layers=views.layers,
                directory=layout.graph("layers"),
                containers={container.layer: container for container in views.containers},
            )
            of_new = [option for option in options if option not in of_old]
            store = _open_new(found, root, aside.place("run"), of_new)
            stack.callback(store.shutdown)
            edit = stack.enter_context(store.writing())
            editors = stack.enter_context(edit._tables.writing())
            batch = edit._tables.batch
            assert batch is not None
            target = Target(files=store.layers.files, batch=batch, layers=editors.layers)
            copies = LayerCopies(source, target, aside, meter)
            for record in _parents_first(views.layers):
                copies.copy(record)
                _copy_directory(layout.graph("layers"), store.layers.directory, record)
            _copy_records(layout, views, store, editors)
        sync_tree(root)
        os.rename(root, found.graphroot)
        sync_directory(os.path.dirname(found.graphroot))


@contextmanager
def _place_beside(graphroot: str) -> Iterator[TempDir]:
    """Give a directory aside for what is to be renamed to `graphroot`; what killed attempts left beside it goes."""
    base = graphroot + _SUFFIX
    make_dirs(os.path.dirname(graphroot))
    aside = Aside(base, before_sweep=unmount_below)
    aside.sweep()
    try:
        with aside.open() as temporary:
            yield temporary
    finally:
        with suppress(OSError):  # somebody else may be converting to the same place
            os.rmdir(base)


def _open_new(found: Conversion, root: str, run: str, options: Sequence[str]) -> Store:
    try:
        return Store.open(Config.load(graphroot=root, runroot=run, driver=found.new_driver, options=options))
    except StorageError as error:
        where = f"no store of {found.new_driver} can be made in {found.graphroot}"
        raise DriverError(f"{where}: {error}", hint=error.hint) from error


def _parents_first(layers: View[LayerRecord]) -> Iterator[LayerRecord]:
    """Give the layers in their order, but each after its parent. Raises DamagedLayer for one that has none."""
    done: set[str] = set()
    for record in layers:
        for found in _way_down(layers, record, done):
            done.add(found.id)
            yield found


def _way_down(layers: View[LayerRecord], top: LayerRecord, done: Container[str]) -> list[LayerRecord]:
    """Give those of a layer and all below it that are not done, the lowest first."""
    chain: list[LayerRecord] = []
    record: LayerRecord | None = top
    while record is not None and record.id not in done:
        if record in chain:
            raise DamagedLayer(f"layer {record.id}: it is a parent of its own parents")
        chain.append(record)
        below = layers.get(record.parent) if record.parent else None
        if record.parent and below is None:
            raise DamagedLayer(f"layer {record.id}: its parent {record.parent} is not in the store", hint=_ELSEWHERE)
        record = below
    return chain[::-1]


def _copy_records(layout: Layout, views: Views, store: Store, editors: Editors) -> None:
    """Put the images and containers into the new store, with all that belongs to them."""
    for image in views.images:
        _copy_directory(os.path.dirname(image.origin), store.images.directory, image)
        editors.images.put(image.replace(origin="", read_only=False))
    for container in views.containers:
        _copy_directory(layout.graph("containers"), store.containers.directory, container)
        origin = store.containers.volatile_records if is_volatile(container) else ""
        editors.containers.put(container.replace(origin=origin, read_only=False))


def _copy_directory(old: str, new: str, record: Record) -> None:
    """Copy the big data of an item, and the directory for files of whoever uses it."""
    source, target = (os.path.join(home, check_id(record.id)) for home in (old, new))
    try:
        is_directory = stat.S_ISDIR(os.lstat(source).st_mode)
    except FileNotFoundError:
        return
    if is_directory:
        make_dirs(target)
        copy_tree(source, target)
