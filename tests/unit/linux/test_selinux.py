"""SELinux as the kernel shows it: without it here, and with files in its place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold.linux import mountinfo, selinux


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """`enabled` asks once per process."""
    yield
    selinux.enabled.cache_clear()
    selinux._selinuxfs.cache_clear()


def appears_at(point: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selinux.enabled.cache_clear()
    selinux._selinuxfs.cache_clear()
    monkeypatch.setattr(mountinfo, "points_of", lambda kind: [str(point)] if kind == "selinuxfs" else [])


def test_off_where_nothing_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountinfo, "points_of", lambda _kind: [])
    selinux.enabled.cache_clear()
    selinux._selinuxfs.cache_clear()
    assert not selinux.enabled()


@pytest.mark.parametrize(("current", "on"), [(b"kernel\0", False), (b"system_u:system_r:init_t:s0\0", True)])
def test_on_with_a_policy_only(current: bytes, on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appears_at(tmp_path, monkeypatch)
    (tmp_path / "current").write_bytes(current)
    real = open
    monkeypatch.setattr("builtins.open", lambda name, mode="r": real(tmp_path / os.path.basename(name), mode))
    assert selinux.enabled() is on


def test_a_context_is_written_for_the_policy_to_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appears_at(tmp_path, monkeypatch)
    (tmp_path / "context").touch()
    selinux.check_context("u:r:t:s0")
    assert (tmp_path / "context").read_bytes() == b"u:r:t:s0\0"


def test_file_labels_are_of_links_themselves(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert selinux.file_label(str(tmp_path / "file")) == ""
    try:
        selinux.set_file_label(str(tmp_path / "link"), "u:r:link_t:s0")
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
            raise
        pytest.skip(f"no labels can be set here: {error}")
    assert selinux.file_label(str(tmp_path / "link")) == "u:r:link_t:s0"
    assert selinux.file_label(str(tmp_path / "file")) == ""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        selinux.set_file_label(fd, "u:r:dir_t:s0")
    finally:
        os.close(fd)
    assert selinux.file_label(os.fsencode(tmp_path)) == "u:r:dir_t:s0"


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        selinux.file_label(str(tmp_path / "nothing"))
