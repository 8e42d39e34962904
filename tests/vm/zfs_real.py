"""The zfs driver on OpenZFS, in a kernel that has it: `make test-zfs`. (Its name keeps it out of other runs.)

The first time OpenZFS is compiled, which takes some minutes. Then all tests of the driver run that run on the script
elsewhere, and the script's answers are held to the real ones; and Go's programs use the same stores.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from tests import programs
from tests.vm import machine, openzfs

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.compat]

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SUITES = {
    "answers": ["tests/drivers/test_zfs_commands.py"],
    "layers": ["tests/drivers/test_zfs.py", "-k", "not cut_short"],
    "cut short": ["tests/drivers/test_zfs.py", "-k", "cut_short"],
    "suite": ["tests/drivers/test_suite.py", "-k", "Zfs"],
    "all drivers": ["tests/drivers/test_all.py", "-k", "zfs"],
}


def _in_guest(job: Path, *words: str) -> str:
    folder = openzfs.kernel()
    settings = [
        f"PATH={folder / 'sbin'}:{os.environ['PATH']}",
        "CONTAINERS_STORAGE_CONF=/dev/null",
        f"PYTHONPATH={CHECKOUT}/src:{CHECKOUT}",
        "PYTHONDONTWRITEBYTECODE=1",
        "LAYERHOLD_WORK=/run/work",
        "CI=true",  # nothing is left out
    ]
    script = f"cd {shlex.quote(str(CHECKOUT))}\n" + shlex.join(["env", *settings, sys.executable, *words])
    done = machine.run(script, job, folder=folder, modules=("loop", "zfs", "ext4"), seconds=1500)
    assert done.status == 0, done.output
    return done.output


@pytest.mark.parametrize("name", list(SUITES))
def test_on_openzfs(name: str, tmp_path: Path) -> None:
    print(_in_guest(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *SUITES[name]))


@pytest.mark.parametrize("version", ["1.24", "1.43", "1.64"])
@pytest.mark.parametrize("work", ["of_go", "of_ours"])
def test_with_go(work: str, version: str, tmp_path: Path) -> None:
    in_guest(work, version, tmp_path)


def test_a_store_that_is_kept(tmp_path: Path) -> None:
    in_guest("kept", "1.43", tmp_path)


def in_guest(work: str, version: str, job: Path) -> None:
    """Do a function of zfs_in_guest.py in a guest that shares the folder `job`."""
    print(_in_guest(job, "-m", "tests.vm.zfs_in_guest", work, programs.storage(version)))
