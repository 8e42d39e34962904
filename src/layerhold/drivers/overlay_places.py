"""Where the layers of the overlay driver are: their own files, and what they are mounted on."""

from __future__ import annotations

import os

from layerhold.drivers.base import checked, is_safe
from layerhold.errors import DriverError, LayerWithoutFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.drivers.homes import Homes

RESERVED = frozenset({"l", "staging", "tempdirs", "backingFsBlockDev"})


class Places:
    """The places of layers in `homes`; what is not in the driver's own one is mounted below `run_home`."""

    def __init__(self, homes: Homes, run_home: str) -> None:
        self.homes = homes
        self.run_home = run_home

    def layer(self, id: str) -> str:
        """Say where layer `id` is. Raises InvalidID for what cannot be a layer's name."""
        return os.path.join(self.homes.of(checked(id, RESERVED)), id)

    def is_own(self, id: str) -> bool:
        """Tell whether layer `id` is in the driver's own home, where all can be mounted to be written to."""
        return self.homes.of(id) == self.homes.own

    def merged(self, id: str) -> str:
        """Say where layer `id` is mounted."""
        return os.path.join(self.homes.own if self.is_own(id) else self.run_home, checked(id, RESERVED), "merged")

    def diff(self, id: str) -> str:
        """Give the directory with the layer's own files. Raises LayerWithoutFiles; DriverError if it is no tree."""
        path = os.path.join(self.layer(id), "diff")
        if not os.path.isdir(path):
            raise LayerWithoutFiles(id, f"faccessat {path if os.path.isdir(self.layer(id)) else self.layer(id)}")
        refuse_composefs(id, os.path.dirname(path))
        return path


def refuse_composefs(id: str, directory: str) -> None:
    """Raise DriverError if a layer is kept as composefs."""
    if os.path.lexists(os.path.join(directory, "composefs-data")):
        raise DriverError(f"layer {id} is kept as composefs, which is not offered yet")


def ids_in(home: str) -> Iterator[str]:
    """List the directories in `home` that are layers."""
    with os.scandir(home) as entries:
        for entry in entries:
            if is_safe(entry.name, RESERVED) and entry.is_dir(follow_symlinks=False):
                yield entry.name
