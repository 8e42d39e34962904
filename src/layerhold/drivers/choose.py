"""Which driver: the one that is asked for, else the one that the store already has, else the first that can be used.

A store has a driver if there are layers in its home; two such homes are an error, since only one can be meant. A home
without layers (Go's program leaves one wherever it tried a driver) is only tried first. When nothing is there yet, the
drivers of `driver_priority` are tried in order, else overlay and vfs, as the Go library does.

(Go passes over a vfs home here, and opens overlay beside it; then the store's layers are not there. Ours finds them.)
"""

from __future__ import annotations

import os

from layerhold.errors import DriverError, DriverIncompatibleFS, DriverNotSupported, DriverPrerequisites

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerhold.drivers.base import Driver

ORDER = ("overlay", "vfs")
_NOT_YET = ("btrfs", "zfs")
# Stores of these drivers are known, too, though nothing here can use them.
_OTHERS = (*_NOT_YET, "devicemapper", "aufs")
# What is in a home that has no layer yet.
_FITTINGS = frozenset({"l", "staging", "tempdirs", "backingFsBlockDev", ".has-mount-program"})


def open_driver(
    name: str | None, *, graphroot: str, runroot: str, options: Sequence[str], priority: Sequence[str]
) -> Driver:
    """Open the driver for a store. Raises DriverError, BadConfig (options), OSError."""
    name = name or _prior(graphroot)
    if name:
        return _open(name, graphroot, runroot, options)
    begun = [candidate for candidate in ORDER if any(_names(os.path.join(graphroot, candidate)))]
    refusals = {}
    for candidate in dict.fromkeys([*begun, *(priority or ORDER)]):
        try:
            return _open(candidate, graphroot, runroot, options)
        except (DriverNotSupported, DriverPrerequisites, DriverIncompatibleFS) as error:
            refusals[candidate] = f"{candidate}: {error}"
    raise DriverNotSupported("; ".join(refusals.values()))


def _open(name: str, graphroot: str, runroot: str, options: Sequence[str]) -> Driver:
    if name in ("overlay", "overlay2"):
        from layerhold.drivers.overlay import OverlayDriver

        home = _overlay_home(name, graphroot)
        return OverlayDriver(os.path.join(graphroot, home), os.path.join(runroot, home), options)
    if name == "vfs":
        from layerhold.drivers.vfs import VfsDriver

        return VfsDriver(os.path.join(graphroot, "vfs"), options)
    if name in _NOT_YET:
        raise DriverNotSupported(f"{name} is not offered yet", hint="the drivers are: " + ", ".join(ORDER))
    raise DriverNotSupported(f"failed to GetDriver graph {name} {graphroot}")


def _overlay_home(name: str, graphroot: str) -> str:
    """Name the home: Go's programs have made one of the driver's other name where they were asked for that one."""
    if name == "overlay2" and _has_layers(graphroot, "overlay2"):
        return name
    return "overlay"


def _prior(graphroot: str) -> str:
    """Find the driver that the store already has, if any."""
    found = [name for name in (*ORDER, "overlay2", *_OTHERS) if _has_layers(graphroot, name)]
    if len(found) > 1:
        raise DriverError(
            f"{graphroot} contains several valid graphdrivers: {', '.join(found)}",
            hint="name the driver that is meant (storage.conf, or --storage-driver)",
        )
    return found[0] if found else ""


def _has_layers(graphroot: str, name: str) -> bool:
    home = os.path.join(graphroot, name, "dir" if name == "vfs" else "")
    return any(entry not in _FITTINGS for entry in _names(home))


def _names(directory: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
