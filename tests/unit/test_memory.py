"""No input makes memory grow with its size: at most 64 MiB, and 100 bytes for each entry.

Each input is made while it is read, in a process of its own, whose peak the kernel tells. What the interpreter with all
modules takes is measured by a tiny input and does not count.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
ENTRIES = 100_000

# Gives the peak in KiB of bringing a stream in and writing it out again.
SCRIPT = """
import os, resource, sys, tarfile, zlib
import layerhold
import layerhold.archive.apply, layerhold.archive.assemble, layerhold.archive.export

def header(name, kind=tarfile.REGTYPE, size=0):
    member = tarfile.TarInfo(name)
    member.type, member.size, member.uid, member.gid = kind, size, os.getuid(), os.getgid()
    return member.tobuf(tarfile.GNU_FORMAT)

def tiny():
    yield header("a", size=512) + bytes(512)

def big_file():
    yield header("big", size=256 << 20)
    for _ in range(256):
        yield bytes(1 << 20)

def packed_big_file():
    compressor = zlib.compressobj(1, wbits=31)
    for block in big_file():
        yield compressor.compress(block)
    yield compressor.compress(bytes(1024)) + compressor.flush()

def many_entries():
    for number in range(ENTRIES):
        yield header(f"{number % 300:03}/{'n' * 60}{number}")

def big_headers():
    comment = b"x" * 1_000_000
    record = b"%d comment=%s\\n" % (len(comment) + 17, comment)
    assert len(record) == len(comment) + 17
    for number in range(100):
        yield header("pax", b"x", len(record)) + record + bytes(-len(record) % 512) + header(f"{number}")

def garbage_behind():
    yield header("a") + bytes(1024)
    for _ in range(256):
        yield bytes(range(256)) * 4096

class Stream:
    def __init__(self, blocks):
        self.blocks = blocks
    def read(self, _size):
        return next((block for block in self.blocks if block), b"")

with layerhold.Store.open(graphroot=sys.argv[2] + "/g", runroot=sys.argv[2] + "/r", driver="vfs") as store:
    layer = store.layers.create(diff=Stream(globals()[sys.argv[1]]()))
    with layer.diff(compression=0) as tar:
        while tar.read(1 << 20):
            pass
    layer.changes()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
""".replace("ENTRIES", str(ENTRIES))


def peak(folder: Path, name: str) -> int:
    """The peak in bytes of a process that brings in the stream `name`. It starts from a small one, not from pytest."""
    place = folder / name
    place.mkdir()
    words = ["/bin/sh", "-c", 'exec "$0" -c "$1" "$2" "$3"', sys.executable, SCRIPT, name, str(place)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) * 1024


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("big_file", 1),
        ("packed_big_file", 1),
        ("many_entries", ENTRIES),
        ("big_headers", 100),
        ("garbage_behind", 1),
    ],
)
def test_memory_is_bounded(tmp_path: Path, name: str, entries: int) -> None:
    assert peak(tmp_path, name) - peak(tmp_path, "tiny") < 64 * MIB + 100 * entries
