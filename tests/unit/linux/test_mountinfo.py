"""What is mounted where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerhold.linux import mountinfo, mounts
from tests import stores


def test_the_kernels_own_mounts() -> None:
    assert "/proc" in mountinfo.mount_points()
    assert mountinfo.filesystem_of("/proc/self/status") == "proc"
    assert mountinfo.filesystem_of("/") != ""


def test_a_path_that_is_not_there_yet() -> None:
    assert mountinfo.filesystem_of("/proc/nothing/here") == "proc"


@pytest.mark.root
def test_odd_names_and_mounts_over_mounts() -> None:
    with stores.scratch("mountinfo") as folder:
        for name in ("with space", "back\\slash", "new\nline", "plain", "plainer"):
            (folder / name).mkdir()
            mounts.mount("tmpfs", str(folder / name), "tmpfs", 0, "size=1m")
            assert os.path.realpath(folder / name) in mountinfo.mount_points()
            assert mountinfo.filesystem_of(str(folder / name / "below")) == "tmpfs"
            assert "size=1024k" in mountinfo.options_of(str(folder / name / "below"))
        mounts.mount("proc", str(folder / "plain"), "proc")
        assert mountinfo.filesystem_of(str(folder / "plain")) == "proc"
        (folder / "link").symlink_to("plainer")
        assert mountinfo.filesystem_of(str(folder / "link")) == "tmpfs"
        assert mountinfo.filesystem_of(str(folder)) == mountinfo.filesystem_of(str(Path(folder).parent))
