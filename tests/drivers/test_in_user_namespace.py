"""The driver suite once more, by root of a user namespace: what an ordinary user is in `layerhold unshare`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SUITE = ("suite", "all", "overlay", "mount_program", "vfs", "image_mounts", "two_file_systems", "third_party")
# File systems that nobody can make, or mount, there.
NOT_THERE = ("btrfs", "Btrfs", "ext4", "xfs", "zfs")
# What is another way there, and why.
OTHERWISE = {
    "test_overlay.py::test_a_label_is_an_option_of_the_mount_where_selinux_is_on": "`userxattr` comes last",
    "test_overlay.py::test_answers_are_remembered_under_gos_names": "no mapped lowers, and no metacopy",
    "test_overlay.py::test_layers_are_the_same_whatever_the_kernel_is_told[redirect_dir": "refused with `userxattr`",
    "test_overlay.py::test_layers_are_the_same_whatever_the_kernel_is_told[metacopy": "refused with `userxattr`",
    "test_overlay.py::test_what_metacopy_left_out_is_read_by_a_mount": "no metacopy",
    "test_overlay.py::test_as_many_mapped_lowers_as_the_kernel_stacks": "no mapped lowers",
    "test_overlay.py::test_mapped_lowers_of_a_killed_process_are_in_nobodys_way": "no mapped lowers",
}
# Root is root here, too, so that the suite can be read; of all other users there are only these.
ENTER = """
import os, sys
from layerhold.linux import namespaces

def set_maps(process):
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{process}/{name}", "w") as file:
            file.write("0 0 1\\n1 1000001 65535\\n100000 1100000 200000\\n")

namespaces.become_root(set_maps)
os.execv(sys.executable, [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *sys.argv[1:]])
"""


def test_the_suite() -> None:
    words = [f"--deselect={(HERE / name).relative_to(ROOT)}" for name in OTHERWISE]
    paths = [str((HERE / f"test_{name}.py").relative_to(ROOT)) for name in SUITE]
    done = subprocess.run(
        [sys.executable, "-c", ENTER, "-q", "-k", f"not ({' or '.join(NOT_THERE)})", *words, *paths],
        check=False,
        cwd=ROOT,
        env=os.environ | {"CI": "", "_CONTAINERS_USERNS_CONFIGURED": "done"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 180, done.stdout[-2000:]
