"""btrfs on an older kernel: one that leaves the quota groups of subvolumes that are gone."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests import programs
from tests.vm import machine

pytestmark = [pytest.mark.vm, pytest.mark.root]


def test_layers_come_and_go(tmp_path: Path) -> None:
    """One test, since each boots anew."""
    if not shutil.which("mkfs.btrfs"):
        raise programs.Unavailable("mkfs.btrfs is not installed (Debian: apt-get install btrfs-progs)")
    checkout = Path(__file__).resolve().parent.parent.parent
    settings = [
        "CONTAINERS_STORAGE_CONF=/dev/null",
        f"PYTHONPATH={checkout}/src:{checkout}",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    command = [sys.executable, "-m", "tests.vm.btrfs_in_guest", "/run/job"]
    done = machine.run(shlex.join(["env", *settings, *command]), tmp_path, modules=("loop", "btrfs"), seconds=200)
    assert done.status == 0, done.output
    seen = json.loads((tmp_path / "result.json").read_text())
    assert seen.pop("kernel").startswith("6.1.")
    assert seen == {
        "files": ["file", "inner", "inner/file"],
        "error": "Disk quota exceeded",
        "changed": [True, ["file", "inner", "more"]],
        "counted": True,
        "noted": True,
        "left by the kernel": True,
        "left": [[], [], []],
    }
