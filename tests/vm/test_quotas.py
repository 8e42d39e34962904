"""Limits on overlay layers: project quotas, which this machine's own kernel may not have.

On xfs with Go's programs, which number and limit layers in the same way; on ext4 they refuse to. Linux 5.10 takes the
device of the file system for the calls (`quotactl_fd` is of 5.14).
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.vm import machine

pytestmark = [pytest.mark.vm, pytest.mark.root]

_FULL = {"xfs": "ENOSPC", "ext4": "EDQUOT"}
_WORDS = {"xfs": "No space left on device", "ext4": "Disk quota exceeded"}
_NO_LIMITS = {
    "xfs": "storage options overlay.size and overlay.inodes not supported. Filesystem does not support Project Quota",
    "ext4": "storage option overlay.size and overlay.inodes only supported for backingFS XFS. Found extfs",
}


@pytest.mark.parametrize(("suite", "version"), [("bullseye", "5.10."), ("bookworm", "6.1.")])
def test_limits_on(tmp_path: Path, suite: str, version: str) -> None:
    """One test for each kernel, since each boots anew."""
    for kind in _FULL:
        if not shutil.which(f"mkfs.{kind}"):
            raise programs.Unavailable(f"mkfs.{kind} is not installed (Debian: apt-get install xfsprogs e2fsprogs)")
    newest = suite == "bookworm"
    found = _found(tmp_path, suite, {name: programs.storage(name) for name in ("1.43", "1.64")} if newest else {})
    assert found["kernel"].startswith(version)
    for kind, full in _FULL.items():
        seen = found[kind]
        assert seen["without"] == {
            "survey": False,
            "driver option": _NO_LIMITS[kind],
            "nothing made": True,
            "container option": "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            "project": 0,
        }
        assert seen["alone"] == {
            "survey": True,
            "numbers": [0, 1, 2],
            "limits": [0, 8, 8],
            "full": full,
            "written when full": True,
            "limit after a mount": 8,
            "changed": [3, 8, True],
            "too much": [full, []],
            "node": not newest,
            "gone": [False, []],
            "still limited": [2],
            "limit of who comes next": [3, 0],
            "container": [4, 9],
            "files": [full, True],
            "refusals": [
                "invalid size: 'x'",
                'strconv.ParseUint: parsing "-1": invalid syntax',
                "unknown option colour",
                f"the layer's own files are more than size=1024 allows: {_WORDS[kind]}",
                f"the layer's own files are more than inodes=2 allows: {_WORDS[kind]}",
            ],
            "at once": [8, True, []],
        }
        if newest:
            assert seen["project"] == {"numbers": [777, 0, 778], "left": []}
    if newest:
        # each number is the next; both are full; the limits that both set; what either removed is gone
        shared = [[1, 1], ["ENOSPC", "ENOSPC"], [9, 8], [True, False, False]]
        assert found["xfs"]["go"] == {
            "1.43": shared,
            "1.43 alone": [["unmounted", "no space left on device"], 8],
            "1.64": shared,
            "1.64 alone": [["no space left on device", "EROFS"], 8],
        }
        refused = [f"error initializing: {_NO_LIMITS['ext4']}", "EDQUOT"]
        assert found["ext4"]["go"] == {"1.43": refused, "1.64": refused}


def _found(job: Path, suite: str, versions: dict[str, str]) -> dict[str, Any]:
    """Have it done without the right to exceed the quotas of ext4, which a container does not have either."""
    checkout = Path(__file__).resolve().parent.parent.parent
    command = ["setpriv", "--bounding-set=-sys_resource", "env", "CONTAINERS_STORAGE_CONF=/dev/null"]
    command += [f"PYTHONPATH={checkout}/src:{checkout}", "PYTHONDONTWRITEBYTECODE=1"]
    command += [sys.executable, "-m", "tests.vm.quotas_in_guest", "/run/job"]
    command += [word for pair in versions.items() for word in pair]
    modules = ("loop", "xfs", "ext4", "quota_v2")
    done = machine.run(shlex.join(command), job, suite=suite, modules=modules, seconds=400)
    assert done.status == 0, done.output
    return json.loads((job / "result.json").read_text())  # type: ignore[no-any-return]
