"""overlay on kernels that lack what newer ones have: the ways around it come to the same.

    5.10  no `userxattr` (5.11), so nothing in user namespaces; no idmapped mounts (5.12; below overlay 5.19)
    6.1   as 5.10, no way to name lowers one by one (`lowerdir+`, 6.5)

The store is on ext4: tmpfs has no `user.` attributes before 6.6.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.vm import machine, overlay_in_guest

pytestmark = [pytest.mark.vm, pytest.mark.root]


@pytest.mark.parametrize(("suite", "version", "newer"), [("bullseye", "5.10.", False), ("bookworm", "6.1.", True)])
def test_overlay_on(tmp_path: Path, suite: str, version: str, newer: bool) -> None:
    checkout = Path(__file__).resolve().parent.parent.parent
    settings = [
        "CONTAINERS_STORAGE_CONF=/dev/null",
        f"PYTHONPATH={checkout}/src:{checkout}",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    command = ["env", *settings, sys.executable, "-m", "tests.vm.overlay_in_guest", "/run/job"]
    done = machine.run(shlex.join(command), tmp_path, suite=suite, modules=("loop", "ext4"), seconds=150)
    assert done.status == 0, done.output
    seen = json.loads((tmp_path / "result.json").read_text())
    assert seen["kernel"].startswith(version)
    assert seen["survey"]["overlay"] == [True, ""]
    assert seen["differences"] == []
    assert seen["volatile"]
    assert seen["deep"] == [f"file-{number}" for number in range(overlay_in_guest.DEEP)]
    assert (seen["way"], seen["owners"]) == ("at mount" if newer else "copy", [100007, 100008])
    usable, reason, *changed = seen["in a namespace"]
    assert (usable, changed) == ((True, [["/file"]]) if newer else (False, []))
    assert ("overlay" in reason) != newer
