"""A store that one program made is the other's, too: listed, given back byte for byte, mounted, changed and deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from layerhold.testing import trees

if TYPE_CHECKING:
    from tests.compat.test_commands import Twin

LOOKS = ("layers -j", "images -j", "containers -j", "changes {top}", "diffsize {top}", "layer top", "image image")
DELETIONS = ("delete-container {box}", "delete-layer {packed}", "delete-image {image}", "delete-image {second}")


def read(maker: Twin, other: Twin) -> None:
    """Have the program of the other twin use the store of the maker, which is as `command_rows.TEMPLATE` has it."""
    reader = other.on(maker)
    for line in LOOKS:
        one, two = maker.run(line), reader.run(line)
        assert one.status == 0
        assert sorted(one.stdout.splitlines()) == sorted(two.stdout.splitlines()), line
    for name, file in (("base", "base.tar"), ("top", "top.tar")):
        assert reader.run(f"diff -u {name}").stdout == reader.plain((reader.files / file).read_bytes())
    assert reader.run("diff -u packed").stdout == maker.run("diff -u packed").stdout
    assert mounted(maker) == mounted(reader)
    for line in DELETIONS:
        assert reader.run(line).status == 0, line
    for twin in (maker, reader):
        assert [row["names"] for row in json.loads(twin.run("layers -j").stdout)[:1]] == [["shared"]]


def mounted(twin: Twin) -> dict[bytes, trees.Row]:
    """The tree of the container `box`."""
    path = Path(twin.run("mount box").stdout.strip().replace("<store>", str(twin.folder)))
    try:
        found = twin.where.do(trees.rows, path)
        assert len(found) > 10
        return found
    finally:
        assert twin.run("unmount box").status == 0
