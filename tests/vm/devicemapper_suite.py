"""The tests that every driver has to pass, on devicemapper: run by test_devicemapper.py in its guest."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold.testing.driver_suite import DriverSuite


class TestDevicemapper(DriverSuite):
    driver = "devicemapper"
    options = ("dm.fs=xfs", "dm.basesize=320M", "dm.loopdatasize=700M", "dm.loopmetadatasize=16M")
    depth = 6  # each mounts a file system, in a machine that is emulated

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """A folder in memory: the guest's root is an overlay, on which no loop device can stand."""
        folder = Path("/run/suite")
        folder.mkdir()
        yield folder
        shutil.rmtree(folder)
