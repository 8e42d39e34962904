"""`dedup` on file systems that can share blocks, ours against Go's on twin stores, and on one that cannot."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import disks, stores
from tests.compat.test_commands import tar

pytestmark = [pytest.mark.compat, pytest.mark.root]

BIG, SMALL = b"0123456789abcdef" * 20_000, b"tiny"
BASE_TAR = tar(("one", BIG, 0o644), ("two", BIG, 0o600), ("small", SMALL, 0o644), ("other", BIG[::-1], 0o644))
TOP_TAR = tar(("three", BIG, 0o644), ("small-too", SMALL, 0o644))


@pytest.fixture(scope="module", params=["btrfs", "xfs"])
def disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on a file system of its own, in a file."""
    with disks.disk(request.param) as place:
        yield place


def made(folder: Path, driver: str) -> stores.Place:
    place = stores.Place(folder, driver)
    place.go("import-layer", "-i", "1" * 64, stdin=BASE_TAR)
    place.go("import-layer", "-i", "2" * 64, "1" * 64, stdin=TOP_TAR)
    place.go("import-layer", "-i", "3" * 64, stdin=TOP_TAR)
    place.go("create-image", "2" * 64)
    return place


def extents(path: Path) -> list[str]:
    """Where the blocks of a file are."""
    done = subprocess.run(["filefrag", "-v", str(path)], check=True, capture_output=True, text=True)
    return re.findall(r"^ +\d+: +\d+\.\. +\d+: +(\d+)\.\.", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
@pytest.mark.parametrize("method", ["crc", "size", "sha256"])
def test_as_many_bytes_are_shared_as_by_go(disk: Path, driver: str, method: str) -> None:
    ours, go = made(disk / "ours", driver), made(disk / "go", driver)
    try:
        for words in (["dedup"], ["dedup"], ["dedup", "-j"]):
            mine, theirs = ours.ours(*words, "--hash-method", method), go.go(*words, "--hash-method", method)
            assert mine.stdout == theirs.stdout
            assert mine.stdout != "Deduplicated 0 bytes\n"
        lower = (
            ours.root / ("vfs/dir" if driver == "vfs" else "overlay") / ("1" * 64) / ("" if driver == "vfs" else "diff")
        )
        assert extents(lower / "one") == extents(lower / "two") != extents(lower / "other")
        assert (lower / "two").read_bytes() == BIG
        assert ours.ours("check").stdout == ""
    finally:
        stores.clear(ours.folder)
        stores.clear(go.folder)


def test_where_blocks_cannot_be_shared_nothing_is(tmp_path: Path) -> None:
    with stores.scratch() as folder:
        place = made(folder / "store", "vfs")
        assert place.ours("dedup").stdout == "Deduplicated 0 bytes\n"
