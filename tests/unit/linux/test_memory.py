"""Memory that is kept for the next block, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, resource, sys
if sys.argv[1] == "kept":
    from layerhold.linux.memory import keep_freed_blocks
    keep_freed_blocks()
fd = os.open("/dev/zero", os.O_RDONLY)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
blocks = []
for _ in range(256):
    blocks = [os.read(fd, 256 << 10) for _ in range(4)]
print(faults() - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


def test_blocks_are_kept() -> None:
    """A thousand blocks of 64 pages each: with glibc they would come anew, 256 at a time."""
    assert faults("kept") < 2000
