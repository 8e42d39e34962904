"""What layers with whiteouts as files show, read without a mount, is the tree that they were made from."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given

from layerhold.archive import changes, export
from layerhold.archive.apply import apply
from layerhold.archive.united import United, opened
from layerhold.archive.whiteouts import AUFS_MARKS, ERASE, NO_DELETIONS, MarksOfAufs
from layerhold.testing.trees import differences
from tests.properties.test_trees import NAMES, SETTINGS, Node, as_kept, make, scratch, trees


@SETTINGS
@given(trees(), trees(), trees(), st.sets(NAMES), st.booleans())
def test_layers_show_the_tree_that_they_were_made_from(
    one: dict[bytes, Node], two: dict[bytes, Node], three: dict[bytes, Node], kept: set[bytes], opaque: bool
) -> None:
    two |= {name: node for name, node in one.items() if name in kept}
    three |= {name: node for name, node in two.items() if name in kept}
    with scratch() as folder:
        whole = [folder / "1", folder / "2", folder / "3"]
        for top, tree in zip(whole, (one, two, three), strict=True):
            top.mkdir()
            make(os.fsencode(top), with_room_for_marks(tree))
        layers = [whole[0]]
        for below, top in itertools.pairwise(whole):
            layers.append(layer(below, top, folder / f"layer-{top.name}", opaque=opaque))
        stack = [str(path) for path in reversed(layers)]
        with opened(United(stack, MarksOfAufs())) as shown, opened(str(whole[2])) as expected:
            assert list(changes.compared(expected, shown, None, None)) == []
        is_applied_again(stack, whole[1], whole[2])


def with_room_for_marks(tree: dict[bytes, Node]) -> dict[bytes, Node]:
    """Cut names to what aufs allowed, so that there can be a whiteout of each."""
    return {name[:251]: node.replace(children=with_room_for_marks(node.children)) for name, node in tree.items()}


def layer(below: Path, top: Path, into: Path, *, opaque: bool) -> Path:
    """Make the layer that shows `top` over `below`; `opaque`: directories hide what was there, and have all anew."""
    into.mkdir()
    if not opaque:
        found = changes.between(str(below), str(top), deletions=ERASE, lowers=None)
        tar = b"".join(export.tar(str(top), changes=found, deletions=ERASE, lowers=None))
        apply(io.BytesIO(tar), str(into), deletions=NO_DELETIONS)
        return into
    tar = b"".join(export.tar(str(top), changes=None, deletions=ERASE, lowers=None))
    apply(io.BytesIO(tar), str(into), deletions=NO_DELETIONS)
    for name in os.listdir(os.fsencode(below)):
        path = os.path.join(os.fsencode(into), name)
        if not os.path.lexists(path):
            (into / os.fsdecode(b".wh." + name)).touch()
        elif os.path.isdir(path) and not os.path.islink(path):
            info = os.stat(path)
            os.close(os.open(path + b"/.wh..wh..opq", os.O_CREAT))
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    (into / ".wh..wh.aufs").touch()
    return into


def is_applied_again(stack: list[str], below: Path, top: Path) -> None:
    """See that the tar of the uppermost layer, unpacked over the tree below it, gives its own."""
    tar = b"".join(export.tar(stack[0], changes=None, deletions=AUFS_MARKS, lowers=tuple(stack[1:])))
    apply(io.BytesIO(tar), str(below), deletions=ERASE)
    assert differences(as_kept(below, links=False), as_kept(top, links=False), ignore=["mtime_ns"]) == []
