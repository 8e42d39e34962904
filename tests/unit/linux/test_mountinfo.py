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


def test_options_with_spaces() -> None:
    """As on Windows' subsystem for Linux: 9p does not escape what it was told."""
    line = (
        rb"98 60 0:52 / /Docker/host rw,noatime - 9p drvfs rw,dirsync,aname=drvfs;path=C:\Program Files\Docker\Docker;"
        b"symlinkroot=/mnt/,access=client\n"
    )
    mount = mountinfo._parsed(line)
    assert (mount.point, mount.kind, mount.source) == ("/Docker/host", "9p", "drvfs")
    assert mount.options[2].startswith(r"aname=drvfs;path=C:\Program Files\Docker")


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
            assert "size=1024k" in mountinfo.mount_of(str(folder / name / "below")).options
        mounts.mount("proc", str(folder / "plain"), "proc")
        assert mountinfo.filesystem_of(str(folder / "plain")) == "proc"
        (folder / "link").symlink_to("plainer")
        assert mountinfo.filesystem_of(str(folder / "link")) == "tmpfs"
        assert mountinfo.filesystem_of(str(folder)) == mountinfo.filesystem_of(str(Path(folder).parent))
