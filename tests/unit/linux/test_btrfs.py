"""The ioctls of btrfs: their numbers and structures as <linux/btrfs.h> has them, and answers of other file systems."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from layerhold.linux import btrfs


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("_SNAP_DESTROY", 0x5000940F),
        ("_TREE_SEARCH", 0xD0009411),
        ("_INO_LOOKUP", 0xD0009412),
        ("_SNAP_CREATE_V2", 0x50009417),
        ("_SUBVOL_CREATE_V2", 0x50009418),
        ("_SUBVOL_GETFLAGS", 0x80089419),
        ("_SUBVOL_SETFLAGS", 0x4008941A),
        ("_FS_INFO", 0x8400941F),
        ("_QUOTA_CTL", 0xC0109428),
        ("_QGROUP_CREATE", 0x4010942A),
        ("_QGROUP_LIMIT", 0x8030942B),
        ("_QUOTA_RESCAN_WAIT", 0x942E),
        ("_GET_SUBVOL_ROOTREF", 0xD000943D),
        ("_INO_LOOKUP_USER", 0xD000943E),
    ],
)
def test_numbers(name: str, number: int) -> None:
    assert getattr(btrfs, name) == number


def test_sizes_of_structures() -> None:
    for structure in (btrfs._VOL_ARGS, btrfs._VOL_ARGS_V2, btrfs._LOOKUP_USER):
        assert structure.size == 4096
    assert (btrfs._SEARCH_KEY.size, btrfs._QUOTA_ARGS.size, btrfs._LIMIT.size) == (104, 16, 48)


def test_other_file_systems(tmp_path: Path) -> None:
    for path in ("/proc", "/dev", "/sys"):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert not btrfs.is_btrfs(fd)
        finally:
            os.close(fd)
    assert not btrfs.is_subvolume(os.stat(tmp_path))
    assert stat.S_ISDIR(os.stat(tmp_path).st_mode)
