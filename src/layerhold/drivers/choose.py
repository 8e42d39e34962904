"""Which driver: the one that is asked for, else the one that the store already has, else the first that can be used.

A store has a driver if there is something in its home; two of them are an error, since only one can be meant. When
nothing is there yet, the drivers of `driver_priority` are tried in order, else overlay and vfs, as the Go library does.
"""

from __future__ import annotations

import os

from layerhold.errors import DriverError, DriverNotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.drivers.base import Driver

ORDER = ("overlay", "vfs")
# Where Go's library has drivers that Layerhold does not have yet.
_OTHERS = ("btrfs", "zfs", "devicemapper", "aufs")


def open_driver(
    name: str | None, *, graphroot: str, runroot: str, options: Sequence[str], priority: Sequence[str]
) -> Driver:
    """Open the driver for a store. Raises DriverError, BadConfig (options), OSError."""
    if not name:
        name = _prior(graphroot)
    if name:
        return _open(name, graphroot, runroot, options)
    refusals = []
    for candidate in priority or ORDER:
        try:
            return _open(candidate, graphroot, runroot, options)
        except DriverError as error:
            refusals.append(f"{candidate}: {error}")
    raise DriverNotSupported("; ".join(refusals))


def _open(name: str, graphroot: str, runroot: str, options: Sequence[str]) -> Driver:
    if name in ("overlay", "overlay2"):
        from layerhold.drivers.overlay import OverlayDriver

        return OverlayDriver(os.path.join(graphroot, "overlay"), os.path.join(runroot, "overlay"), options)
    if name == "vfs":
        from layerhold.drivers.vfs import VfsDriver

        return VfsDriver(os.path.join(graphroot, "vfs"), options)
    raise DriverNotSupported(f"no such driver: {name}" if name not in _OTHERS else f"{name} is not offered yet")


def _prior(graphroot: str) -> str:
    """Find the driver that the store already has, if any."""
    found = [name for name in (*ORDER, *_OTHERS) if _has_layers(os.path.join(graphroot, name))]
    if len(found) > 1:
        raise DriverError(
            f"{graphroot} contains several valid graphdrivers: {', '.join(found)}",
            hint="name the driver that is meant (storage.conf, or --storage-driver)",
        )
    return found[0] if found else ""


def _has_layers(home: str) -> bool:
    """Tell whether something is in a driver's home (a failed attempt to open a driver leaves an empty one)."""
    try:
        return any(True for _ in os.scandir(home))
    except (FileNotFoundError, NotADirectoryError):
        return False
