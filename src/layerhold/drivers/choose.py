"""Which driver: the one that is asked for, else the one that the store already has, else the first that can be used.

A store has a driver if there are layers in its home; two such homes are an error, since only one can be meant. A home
without layers (Go's program leaves one wherever it tried a driver) is only tried first. When nothing is there yet, the
drivers of `driver_priority` are tried in order, else overlay, btrfs, zfs and vfs, as the Go library does.

A store of aufs is opened if it is there, to be read; that driver is never tried for a new one. Nor is devicemapper,
unless it is named.

Drivers of others are found by the entry points of their packages (third_party.py), when one is named that is none of
ours, or when the store has layers of a driver that is none of ours.

(Go passes over a vfs home here, and opens overlay beside it; then the store's layers are not there. Ours finds them.)
"""

from __future__ import annotations

import os

from layerhold.errors import DriverError, DriverIncompatibleFS, DriverNotSupported, DriverPrerequisites
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypedDict

    from layerhold.drivers.base import Driver

    class Elsewhere(TypedDict):
        """Homes of a driver that are not its own."""

        images: str
        additional: Sequence[str]


ORDER = ("overlay", "btrfs", "zfs", "vfs")
# Stores of these drivers are known, too, but none is made if the driver is not named.
_OTHERS = ("devicemapper", "aufs")
_ONLY_TO_READ = "no kernel has aufs any more; a store of it can be read, and converted by `layerhold convert`"
# The directories of the homes in which layers are, where that is not the home itself.
_LAYERS = {"aufs": "diff", "btrfs": "subvolumes", "devicemapper": "metadata", "vfs": "dir"}
# What is in a home that has no layer yet.
_FITTINGS = frozenset({"l", "staging", "tempdirs", "backingFsBlockDev", ".has-mount-program"})
_FITTINGS_OF_DEVICEMAPPER = frozenset({"base", "deviceset-metadata", "transaction-metadata"})


class Place(Value):
    """The roots of a store: its own, that of images if they have one, and those of additional stores.

    `idmapped`: whether mounts may show other owners than the files have, where the kernel can.
    """

    graphroot: str
    runroot: str
    imagestore: str = ""
    additional: tuple[str, ...] = ()
    idmapped: bool = True


def open_driver(name: str | None, place: Place, *, options: Sequence[str], priority: Sequence[str]) -> Driver:
    """Open the driver for a store. Raises DriverError, BadConfig (options), OSError."""
    graphroot = place.graphroot
    name = name or prior(graphroot)
    if name:
        return _open(name, place, options)
    begun = [candidate for candidate in ORDER if any(_names(os.path.join(graphroot, candidate)))]
    refusals = {}
    for candidate in dict.fromkeys([*begun, *(priority or ORDER)]):
        try:
            return _open(candidate, place, options)
        except (DriverNotSupported, DriverPrerequisites, DriverIncompatibleFS) as error:
            refusals[candidate] = f"{candidate}: {error}"
    raise DriverNotSupported("; ".join(refusals.values()))


def _open(name: str, place: Place, options: Sequence[str]) -> Driver:
    graphroot = place.graphroot
    if name in ("overlay", "overlay2"):
        from layerhold.drivers.overlay import OverlayDriver

        home = _overlay_home(name, graphroot)
        return OverlayDriver(
            os.path.join(graphroot, home),
            os.path.join(place.runroot, home),
            options,
            idmapped=place.idmapped,
            **_elsewhere("overlay", place),
        )
    if name == "vfs":
        from layerhold.drivers.vfs import VfsDriver

        return VfsDriver(os.path.join(graphroot, "vfs"), options, **_elsewhere("vfs", place))
    if name in ("btrfs", "zfs", "devicemapper"):
        return _open_with_one_home(name, place, options)
    if name == "aufs":
        from layerhold.drivers.aufs import AufsDriver

        if not has_layers(graphroot, name):
            raise DriverNotSupported(
                f"failed to GetDriver graph {name} {graphroot}",
                hint=_ONLY_TO_READ,
            )
        return AufsDriver(os.path.join(graphroot, name), options, additional=_elsewhere(name, place)["additional"])
    if name not in _OTHERS:
        from layerhold.drivers import third_party

        if (opener := third_party.opener(name)) is not None:
            return third_party.named(opener(place, options), name)
    raise DriverNotSupported(f"failed to GetDriver graph {name} {graphroot}")


def _open_with_one_home(name: str, place: Place, options: Sequence[str]) -> Driver:
    """Open a driver that, as Go's, has the layers of images among the others, even if they have a root of their own."""
    home, additional = os.path.join(place.graphroot, name), _elsewhere(name, place)["additional"]
    if name == "btrfs":
        from layerhold.drivers.btrfs import BtrfsDriver

        return BtrfsDriver(home, options, additional=additional)
    if name == "zfs":
        from layerhold.drivers.zfs import ZfsDriver

        return ZfsDriver(home, options, additional=additional)
    from layerhold.drivers.devicemapper import DevicemapperDriver

    try:
        return DevicemapperDriver(home, options, additional=additional)
    except DriverNotSupported as error:  # in Go's words, and then why
        why = "; ".join(filter(None, (error.context, error.hint)))
        raise DriverNotSupported(f"failed to GetDriver graph {name} {place.graphroot}", hint=why) from error


def open_to_read(name: str, graphroot: str, place: Place, options: Sequence[str] = ()) -> Driver:
    """Open the driver `name` for a store of which nothing is changed; what it has to make it makes in `place`.

    Layers may also lie in the image store that `place` names. The options are zfs's and devicemapper's: where their
    datasets and pools are is in none of the store's files. Raises DriverError, OSError.
    """
    homes = [os.path.join(root, name) for root in (graphroot, place.imagestore) if root]
    if name in ("btrfs", "vfs"):
        from layerhold.drivers.whole_trees import TreesToRead

        return TreesToRead(name, homes, _LAYERS[name])
    if name == "zfs":
        from layerhold.drivers.zfs_reading import ZfsToRead

        return ZfsToRead(homes[0], options)
    if name in ("overlay", "overlay2"):
        from layerhold.drivers.overlay import OverlayDriver

        own = os.path.join(place.graphroot, "overlay"), os.path.join(place.runroot, "overlay")
        return OverlayDriver(*own, ("overlay.skip_mount_home=true",), additional=homes, idmapped=place.idmapped)
    return _open(name, place.replace(graphroot=graphroot), options)


def _elsewhere(home: str, place: Place) -> Elsewhere:
    return {
        "images": os.path.join(place.imagestore, home) if place.imagestore else "",
        "additional": [os.path.join(root, home) for root in place.additional],
    }


def _overlay_home(name: str, graphroot: str) -> str:
    """Name the home: Go's programs have made one of the driver's other name where they were asked for that one."""
    if name == "overlay2" and has_layers(graphroot, "overlay2"):
        return name
    return "overlay"


def prior(graphroot: str) -> str:
    """Find the driver that the store already has, if any. Raises DriverError if there are several."""
    found = [name for name in (*ORDER, "overlay2", *_OTHERS) if has_layers(graphroot, name)]
    if len(found) > 1:
        raise DriverError(
            f"{graphroot} contains several valid graphdrivers: {', '.join(found)}",
            hint="name the driver that is meant (storage.conf, or --storage-driver)",
        )
    return found[0] if found else _of_others(graphroot)


def _of_others(graphroot: str) -> str:
    known = (*ORDER, *_OTHERS)
    layers = [name.removesuffix("-layers") for name in _names(graphroot) if name.endswith("-layers")]
    others = [name for name in layers if name not in known and os.path.exists(f"{graphroot}/{name}-layers/layers.json")]
    if not others:
        return ""
    from layerhold.drivers import third_party

    return next((name for name in third_party.names() if name in others), "")


def has_layers(graphroot: str, name: str) -> bool:
    """Tell whether there are layers of the driver `name`."""
    if name == "zfs":  # the layers are no files, and in use is what has records
        return any(_is_filled(f"{graphroot}/zfs-layers/{file}") for file in ("layers.json", "volatile-layers.json"))
    home = os.path.join(graphroot, name, _LAYERS.get(name, ""))
    fittings = _FITTINGS_OF_DEVICEMAPPER if name == "devicemapper" else _FITTINGS
    return any(entry not in fittings for entry in _names(home))


def _is_filled(records: str) -> bool:
    try:
        return os.path.getsize(records) > len("null\n")
    except OSError:
        return False


def _names(directory: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
