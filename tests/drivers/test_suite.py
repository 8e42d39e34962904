"""The suite of `layerhold.testing`, by every driver on every file system that can be made in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold.linux import mounts
from layerhold.store import Store
from layerhold.testing.driver_suite import DriverSuite
from tests import disks, fuse, stores, zfs


class TestVfs(DriverSuite):
    """On the file system of this machine; for ordinary users as well."""

    driver = "vfs"

    @pytest.fixture
    def folder(self, store_dir: Path) -> Path:
        return store_dir


@pytest.mark.root
class TestVfsElsewhere(TestVfs):
    """On others."""

    @pytest.fixture(params=["ext4", "xfs", "btrfs", "tmpfs"])
    def folder(self, request: pytest.FixtureRequest) -> Iterator[Path]:
        yield from _on(request.param)


@pytest.mark.root
class TestOverlay(DriverSuite):
    """On all that overlay can stand on; with as many layers as the kernel stacks."""

    driver = "overlay"
    depth = 500

    @pytest.fixture(params=["", "ext4", "xfs", "btrfs", "tmpfs"])
    def folder(self, request: pytest.FixtureRequest) -> Iterator[Path]:
        yield from _on(request.param)


@pytest.mark.root
class TestOverlayByProgram(DriverSuite):
    """By fuse-overlayfs, which does not mind how many layers there are; and where the kernel has no overlay."""

    driver = "overlay"
    options = (f"overlay.mount_program={fuse.PROGRAM}",)
    depth = 200

    @pytest.fixture(params=["", "xfs", "tmpfs"])
    def folder(self, request: pytest.FixtureRequest) -> Iterator[Path]:
        fuse.program()
        yield from _on(request.param)

    @pytest.mark.xfail(reason="fuse-overlayfs 1.10 keeps what is written to a file of several names under one of them")
    def test_a_layer_written_to_by_a_mount(self, store: Store) -> None:
        super().test_a_layer_written_to_by_a_mount(store)


@pytest.mark.root
class TestBtrfs(DriverSuite):
    """On the only file system that it can use."""

    driver = "btrfs"

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        yield from _on("btrfs")


@pytest.mark.root
class TestZfs(DriverSuite):
    """On OpenZFS where the machine has it, else on a scripted one."""

    driver = "zfs"
    depth = 6  # each layer starts several programs

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        with zfs.place() as found:
            self.__class__.options = found.options
            yield found.folder


def _on(kind: str) -> Iterator[Path]:
    if kind in ("", "tmpfs"):
        with stores.scratch("suite") as folder:
            if kind:
                mounts.mount(kind, str(folder), kind)
            try:
                yield folder
            finally:
                for point in stores.mounts_below(folder):
                    mounts.umount(point, mounts.MNT_DETACH)
    else:
        with disks.disk(kind) as folder:
            yield folder
