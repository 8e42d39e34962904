"""The devicemapper driver on real thin pools: a second kernel, and Go's programs that have the driver still."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests import programs
from tests.vm import machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.compat]


@pytest.mark.parametrize(
    ("work", "version"),
    [
        ("of_go", "1.43"),
        ("of_go", "1.24"),
        ("of_ours", "1.43"),
        ("cut_short", "1.43"),
        ("given_pool", "1.43"),
        ("kept", "1.43"),
        ("suite", "-"),
    ],
)
def test_devicemapper(work: str, version: str, tmp_path: Path) -> None:
    """Each boots anew, and says in its guest what does not hold."""
    in_guest(work, version, tmp_path)


def in_guest(work: str, version: str, job: Path) -> None:
    """Do a function of devicemapper_in_guest.py, or the suite, in a guest that shares the folder `job`."""
    checkout = Path(__file__).resolve().parent.parent.parent
    settings = [
        "CONTAINERS_STORAGE_CONF=/dev/null",
        f"PYTHONPATH={checkout}/src:{checkout}",
        "PYTHONDONTWRITEBYTECODE=1",
        "DM_DISABLE_UDEV=1",  # for libdevmapper, which Go's programs use: there is no udev in the guest
    ]
    if work == "suite":
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"{checkout}/tests/vm/devicemapper_suite.py"]
    else:
        command = ["-m", "tests.vm.devicemapper_in_guest", work, programs.storage(version)]
    modules = ("dm_thin_pool", "loop", "xfs", "ext4")
    done = machine.run(shlex.join(["env", *settings, sys.executable, *command]), job, modules=modules, seconds=250)
    assert done.status == 0, done.output
