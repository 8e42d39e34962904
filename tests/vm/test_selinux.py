"""Labels on a machine where SELinux is on: a second kernel, with a policy that knows containers."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.vm import machine, policy, selinux_in_guest

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.compat]

LABEL = selinux_in_guest.LABEL
LABELLED = {"file": LABEL, "new": LABEL, "context": LABEL}
PLAIN = "system_u:object_r:file_t:s0"  # what the policy gives to files without a label of their own
SHARED = policy.FILES  # for all containers
GO_LABELS = {"vfs": [SHARED, SHARED], "btrfs": [PLAIN, PLAIN]}  # docs/compatibility.md
UNCONFINED = "s0:c1022,c1023"


@pytest.fixture
def seen(tmp_path: Path) -> Any:
    """What the guest wrote down."""
    policy.compile_to(tmp_path / "policy")
    (tmp_path / "lxc_contexts").write_text(f'process = "{policy.PROCESS}"\nfile = "{policy.FILES}"\n')
    checkout = Path(__file__).resolve().parent.parent.parent
    settings = [
        "CONTAINERS_STORAGE_CONF=/dev/null",
        f"PYTHONPATH={checkout}/src:{checkout}",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    command = [sys.executable, "-m", "tests.vm.selinux_in_guest", "/run/job", programs.storage()]
    done = machine.run(
        shlex.join(["env", *settings, *command]),
        tmp_path,
        options="security=selinux enforcing=0",
        modules=("loop", "btrfs"),
        seconds=150,
    )
    assert done.status == 0, done.output
    return json.loads((tmp_path / "result.json").read_text())


def level(label: str) -> str:
    return label.split(":", 3)[3]


def test_labels_where_selinux_is_on(seen: Any) -> None:
    """One test, since each boots anew."""
    assert (seen["before"], seen["after"]) == (False, True)

    first, second, unconfined = seen["chosen"]
    for process, mount in (first, second):
        assert re.fullmatch(r"s0:c\d+,c\d+", level(process))
        assert (level(mount), mount) == (level(process), f"{policy.FILES.removesuffix(':s0')}:{level(process)}")
    assert first[0].startswith(policy.PROCESS)
    assert second[0].startswith("system_u:system_r:spc_t:s0:c")
    assert unconfined == ["", f"system_u:object_r:container_file_t:{UNCONFINED}"]
    assert re.fullmatch(r'bad label "system_u:system_r:unknown_t:s0:\S+": the policy .+', seen["unknown type"])

    assert seen["without"] == {"file": PLAIN, "new": PLAIN, "context": ""}
    assert seen["ours"] == seen["go"] == seen["recorded"] == LABELLED
    assert (
        seen["unknown label"] == f'bad label "{selinux_in_guest.UNKNOWN}": the policy of this machine does not know it'
    )

    # Go chooses labels of the same form, and ours is of another level than all of them.
    assert {process.rsplit(":", 2)[0] for process, _ in seen["containers"]} == {policy.PROCESS.removesuffix(":s0")}
    assert len({level(process) for process, _ in seen["containers"]}) == 3
    assert seen["their mounts"] == [mount for _, mount in seen["containers"]]

    for name in ("private", "private again"):
        own, inside = seen[name]
        assert inside == [own]
        assert own != SHARED
    assert seen["shared"][1] == [SHARED]
    assert seen["outside"] == PLAIN
    assert seen["of the machine"] == "relabelling /etc is not allowed: the machine itself needs its labels"
    assert seen["layers"] == {driver: [[SHARED, SHARED], GO_LABELS[driver]] for driver in ("vfs", "btrfs")}

    pairs = [f"s0:c{low},c{high}" for low, high in itertools.combinations(range(4), 2)]
    assert seen["levels"] == {
        "ended": [0, 0],
        "levels": pairs,
        "one more": "no two categories are left for one more container",
        "unchanged": True,
        "freed": True,
    }
