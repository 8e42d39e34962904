"""Thin devices that the kernel shows, mounted nowhere: of layers that are read, and of those in the making."""

from __future__ import annotations

import os

from layerhold.drivers.base import ERASE, Contents
from layerhold.drivers.devicemapper_mounts import TREE, detached, dress, set_retries
from layerhold.tree.durable import settle_names, sync_tree
from layerhold.tree.files import move

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.drivers.devicemapper_devices import DeviceSet
    from layerhold.drivers.devicemapper_metadata import ThinDevice
    from layerhold.drivers.devicemapper_pool import Pool


class Shown:
    """A device that the kernel shows and has mounted nowhere: `fd` is its top, `tree` the files of the layer."""

    def __init__(
        self,
        pool: Pool,
        devices: DeviceSet,
        name: str,
        device: ThinDevice,
        *,
        id: str,
        options: Sequence[str],
        retries: str = "",
        read_only: bool = False,
    ) -> None:
        self._pool, self._devices = pool, devices
        self._name = name
        with self._devices.locked():
            node = self._pool.activate(name, device.id, device.size)
            try:
                self.fd, self._kind = _mounted(node, options, id, retries, read_only=read_only)
            except BaseException:
                self._pool.deactivate(name)
                raise
        self.tree = f"/proc/self/fd/{self.fd}/{TREE}"

    def grow(self, size: int) -> None:
        """Let the file system have all of its device."""
        from layerhold.linux import block

        block.grow(f"/proc/self/fd/{self.fd}/.", self._kind, size)

    def close(self, *, at_once: bool = False) -> None:
        """Unmount it, and let the device go; again is no error."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            with self._devices.locked():
                self._pool.deactivate(self._name, at_once=at_once)


class ShownBuild:
    """A layer's device in the making; its file is at `path`."""

    def __init__(self, shown: Shown, path: str, final: str) -> None:
        self.contents = Contents(path=shown.tree, deletions=ERASE)
        self._shown = shown
        self._path = path
        self._final = final

    def sync(self, *, filled: bool = True) -> None:  # noqa: ARG002 - a mere snapshot costs nothing to sync
        """Make the files durable; the device itself is since it was made."""
        sync_tree(self.contents.path)

    def publish(self) -> None:
        """Unmount the device, and move its file into its place; what is there is deleted with what is aside."""
        self._shown.close(at_once=True)
        if os.path.lexists(self._final):
            from layerhold.linux.files import RENAME_EXCHANGE, renameat2

            renameat2(self._path, self._final, RENAME_EXCHANGE)
        else:
            move(self._path, self._final)
        settle_names(os.path.dirname(self._final))


def _mounted(node: str, options: Sequence[str], id: str, retries: str, *, read_only: bool) -> tuple[int, str]:
    """Mount a device nowhere, with the files that a layer has at its top; also give the kind of its file system."""
    fd, kind = detached(node, options)
    try:
        dress(fd, id)
        if retries and kind == "xfs":
            set_retries(node, retries)
        if read_only:
            again, _kind = detached(node, options, read_only=True)
            os.dup2(again, fd, inheritable=False)
            os.close(again)
    except BaseException:
        os.close(fd)
        raise
    return fd, kind
