"""Numbers of projects, which xfs has on any kernel. Limits take one with quotas: tests/vm/test_quotas.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerhold.linux import project_quota
from tests import disks

pytestmark = pytest.mark.root


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def project(path: Path) -> int:
    with opened(path) as fd:
        return project_quota.project(fd)


def test_numbers_are_passed_on() -> None:
    with disks.disk("xfs") as disk:
        top = disk / "top"
        top.mkdir()
        (top / "before").mkdir()
        with opened(top) as fd:
            with pytest.raises(OSError, match="Invalid argument"):
                project_quota.start(fd, project_quota.MOST + 1)
            project_quota.start(fd, project_quota.MOST)
        (top / "inside/below").mkdir(parents=True)
        (top / "file").touch()
        assert [project(top / name) for name in ("", "inside/below", "file", "before")] == [project_quota.MOST] * 3 + [
            0
        ]
        with pytest.raises(OSError, match="cross-device") as caught:
            os.rename(top / "before", top / "inside/before")
        assert caught.value.errno == errno.EXDEV
        with opened(top) as fd:
            project_quota.stop_inheriting(fd)
            project_quota.stop_inheriting(fd)
        (top / "after").touch()
        assert [project(top), project(top / "after")] == [project_quota.MOST, 0]


def test_without_quotas_the_kernel_says_so() -> None:
    with disks.disk("xfs") as disk:
        device = project_quota.Device(str(disk), str(disk / "node"))
        for call in (lambda: device.quota(1), lambda: device.limit(1, size=1 << 20, inodes=0)):
            with pytest.raises(OSError, match="quotactl") as caught:
                call()
            assert caught.value.errno in (errno.ENOSYS, errno.ESRCH)


def test_other_file_systems_have_no_numbers() -> None:
    with opened(Path("/proc/self")) as fd, pytest.raises(OSError, match=r"ioctl|supported") as caught:
        project_quota.project(fd)
    assert caught.value.errno in (errno.ENOTTY, errno.EOPNOTSUPP)
