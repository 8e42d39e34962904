"""A machine that loses its power at any moment has a store that opens, with all that had been done in it, and whole.

The seeds are steady, but the moments are not quite: the kernel writes when it likes. `make soak` goes on for longer.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.crash import recorded_disk
from tests.crash.power import DRIVERS
from tests.crash.recorded_disk import MAKE, RecordedDisk, entry_in_log
from tests.crash.replay import KEEPING, Replay
from tests.crash.sweep import PYTHONPATH, ROOT

POINTS = 40  # for each driver on each file system


def _lose_power(filesystem: str, driver: str, points: int, *words: str) -> tuple[int, str]:
    """Give how many failures there were, and what was said of them.

    In a mount namespace of its own: what is mounted goes with the process, and nobody else keeps it busy.
    """
    recorded_disk.need(filesystem)
    command = ["unshare", "--mount", sys.executable, "-m", "tests.crash.power", "--seed", "1"]
    where = ["--filesystem", filesystem, "--driver", driver, "--points", str(points)]
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run([*command, *where, *words], check=False, capture_output=True, text=True, cwd=ROOT, env=env)
    told = re.search(r"(\d+) losses of power, (\d+) failures\n$", done.stdout)
    assert told, done.stdout + done.stderr
    assert int(told[1]) == points
    return int(told[2]), done.stdout


@pytest.mark.root
@pytest.mark.compat
@pytest.mark.parametrize(("filesystem", "driver"), [(on, driver) for on in MAKE for driver in DRIVERS[on]])
def test_power_is_lost(filesystem: str, driver: str) -> None:
    failures, told = _lose_power(filesystem, driver, POINTS)
    assert failures == 0, told


@pytest.mark.root
@pytest.mark.compat
@pytest.mark.parametrize(
    ("filesystem", "call"),
    [*product(("ext4", "xfs"), ("fsync", "sync_file_range", "syncfs")), ("btrfs", "fdatasync")],
)
def test_a_store_that_does_not_sync_is_found_out(filesystem: str, call: str) -> None:
    failures, told = _lose_power(filesystem, "overlay", POINTS // 2, "--without", call)
    assert failures, told


def test_what_a_disk_may_hold(tmp_path: Path) -> None:
    disk = RecordedDisk(tmp_path)
    disk.base.write_bytes(bytes(4 * 4096))
    block = {letter: letter * 4096 for letter in (b"a", b"b", b"c", b"d", b"e")}
    log = [
        entry_in_log(0, block[b"a"]),
        entry_in_log(),
        entry_in_log(4096, block[b"b"] + block[b"c"]),
        entry_in_log(0, block[b"d"]),
        entry_in_log(),
        entry_in_log(4096, block[b"e"]),
    ]
    disk.log.write_bytes(b"".join(log))
    ends = [sum(map(len, log[: number + 1])) for number in range(len(log))]
    replay = Replay(disk, tmp_path)
    dice = random.Random(1)
    assert replay.moments(0, ends[-1]) == ends
    assert replay.moments(ends[0], ends[2]) == ends[1:3]

    def images(moment: int, keeping: str) -> set[bytes]:
        found = set()
        for _ in range(60):
            with replay.image(moment, keeping, dice) as image:
                content = image.read_bytes()
                found.add(bytes(content[at] or ord("-") for at in range(0, len(content), 4096)))
        return found

    assert images(ends[0], "nothing") == {b"----"}
    assert images(ends[0], "half") == {b"----", b"a---"}
    assert images(ends[1], "nothing") == images(ends[1], "all") == {b"a---"}
    half = {bytes((first, *rest, ord("-"))) for first in b"ad" for rest in ((x, y) for x in b"-b" for y in b"-c")}
    assert images(ends[3], "half") == half
    assert images(ends[3], "the latest") < half
    assert images(ends[3], "the earliest") < half
    assert images(ends[3], "all") == {b"dbc-"}
    assert images(ends[4], "nothing") == {b"dbc-"}
    assert images(ends[5], "half") == {b"dbc-", b"dec-"}
    assert set(KEEPING) == {"all", "nothing", "half", "the latest", "the earliest"}
