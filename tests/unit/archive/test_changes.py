"""What differs between two trees, and what an overlay layer says of what is below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerhold.archive.changes import ADD, DELETE, MODIFY, Change, between, diff_size
from layerhold.archive.whiteouts import AUFS_MARKS, ERASE, OVERLAY_MARKS
from layerhold.tree.root import Root
from tests import stores
from tests.unit.archive.trees import OLD, OPAQUE, PREFIX, WHITEOUT, attribute, copied, make, settle

LETTERS = {MODIFY: "C", ADD: "A", DELETE: "D"}
BASE: dict[str, Any] = {"a/b": b"b", "a/c/d": b"d", "a-b": b"", "e/f": b"f", "g": b"g", "link": "g", "empty": {}}


def listed(base: Path | None, path: Path) -> list[str]:
    """The changes of a whole tree, a word each."""
    return words(between(str(base) if base else None, str(path), deletions=ERASE, lowers=None))


def layered(path: Path, *lowers: Path) -> list[str]:
    """The changes of an overlay layer over `lowers`, the nearest first."""
    below = [str(lower) for lower in lowers]
    return words(between(None, str(path), deletions=OVERLAY_MARKS, lowers=below, xattr_prefix=PREFIX))


def words(found: Any) -> list[str]:
    return [f"{LETTERS[change.kind]} {os.fsdecode(change.path)}" for change in found]


# -- one whole tree


def test_of_a_tree_alone_everything_is_added_in_the_order_of_a_walk(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {"a/b": b"", "a-b": b"", "a/z": {}, "l": "a"})
    assert listed(None, tree) == ["A /a", "A /a/b", "A /a/z", "A /a-b", "A /l"]


def test_names_are_bytes(tmp_path: Path) -> None:
    tree = make(tmp_path / "t", {})
    for name in (b"\xff", b"\xc3\xa9", b"new\nline"):
        (Path(os.fsdecode(os.fsencode(tree) + b"/" + name))).write_bytes(b"")
    found = between(None, str(tree), deletions=ERASE, lowers=None)
    assert [change.path for change in found] == [b"/new\nline", b"/\xc3\xa9", b"/\xff"]


# -- two whole trees


def write(name: str, content: bytes = b"x") -> Callable[[Path], object]:
    return lambda top: (top / name).write_bytes(content)


def replace(name: str, tree: dict[str, Any]) -> Callable[[Path], object]:
    def act(top: Path) -> None:
        if (top / name).is_dir():
            for path in sorted((top / name).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            (top / name).rmdir()
        else:
            (top / name).unlink()
        make(top, tree)

    return act


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (write("a/c/d", b"d"), []),
        (write("a/c/d", b"longer"), ["C /a", "C /a/c", "C /a/c/d"]),
        (write("a/c/new"), ["C /a", "C /a/c", "A /a/c/new"]),
        (lambda top: (top / "g").unlink(), ["D /g"]),
        (lambda top: (top / "a/b").unlink(), ["C /a", "D /a/b"]),
        (lambda top: (top / "a/b").chmod(0o4711), ["C /a", "C /a/b"]),
        (lambda top: (top / "empty").chmod(0o700), ["C /empty"]),
        (replace("link", {"link": "h"}), ["C /link"]),
        (replace("g", {"g/in": b""}), ["C /g", "A /g/in"]),
        (replace("a", {"a": b""}), ["C /a"]),
        (replace("g", {"g": "link"}), ["C /g"]),
        (replace("e", {"empty/e": b""}), ["D /e", "C /empty", "A /empty/e"]),
        # A directory that is listed only for what is in it has its own place in the order of paths.
        (lambda top: [write(name)(top) for name in ("a-c", "a/n")], ["C /a", "A /a-c", "A /a/n"]),
    ],
)
def test_of_two_trees(change: Callable[[Path], object], expected: list[str], tmp_path: Path) -> None:
    old = make(tmp_path / "old", BASE)
    new = copied(old, tmp_path / "new")
    change(new)
    settle(new)
    assert listed(old, new) == expected


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [(5, 5, True), (5, 0, True), (0, 5, True), (5, 6, False), (0, 10**9, False), (5, 10**9, False)],
)
@pytest.mark.parametrize("name", ["g", "empty"])
def test_times_are_compared_as_far_as_they_are_known(
    name: str, before: int, after: int, same: bool, tmp_path: Path
) -> None:
    old = make(tmp_path / "old", BASE)
    new = copied(old, tmp_path / "new")
    for top, time in ((old, before), (new, after)):
        os.utime(top / name, ns=(OLD, OLD + time))
    assert listed(old, new) == ([] if same else [f"C /{name}"])


@pytest.mark.parametrize("name", ["g", "empty"])
def test_attributes_of_users_are_compared(name: str, tmp_path: Path) -> None:
    old = make(tmp_path / "old", BASE)
    attribute(old / name, "user.a", b"1")
    new = copied(old, tmp_path / "new")
    attribute(new / name, "user.a", b"1")
    settle(new)
    assert listed(old, new) == []
    attribute(new / name, "user.a", b"2")
    assert listed(old, new) == [f"C /{name}"]


@pytest.mark.root
def test_owners_devices_and_capabilities_are_compared(tmp_path: Path) -> None:
    old = make(tmp_path / "old", {"own": b"", "cap": b"", "trusted": b""})
    os.mknod(old / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    settle(old)
    new = make(tmp_path / "new", {"own": b"", "cap": b"", "trusted": b""})
    os.mknod(new / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.chown(new / "own", 0, 5)
    os.setxattr(new / "cap", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(new / "trusted", "trusted.note", b"not compared")
    settle(new)
    assert listed(old, new) == ["C /cap", "C /dev", "C /own"]


def test_what_is_the_same_inode_is_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make(tmp_path / "t", BASE)
    looked: list[bytes] = []
    listing = Root.listing

    def noted(root: Root, path: bytes) -> list[Any]:
        looked.append(path)
        return listing(root, path)

    monkeypatch.setattr(Root, "listing", noted)
    assert listed(tree, tree) == []
    assert set(looked) == {b""}


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", {"x": b"", "y": b""})
    old = make(tmp_path / "old", {"d": str(outside)})
    new = make(tmp_path / "new", {"d/x": b""})
    assert listed(old, new) == ["C /d", "A /d/x"]
    assert listed(new, old) == ["C /d"]


# -- an overlay layer


@pytest.mark.parametrize(
    ("layer", "lowers", "expected"),
    [
        ({}, [BASE], []),
        ({"n": b""}, [], ["A /n"]),
        ({"n/m": b""}, [BASE], ["A /n", "A /n/m"]),
        ({"g": b"more"}, [BASE], ["C /g"]),
        ({"g": WHITEOUT}, [BASE], ["D /g"]),
        ({"not-below": WHITEOUT}, [BASE], ["D /not-below"]),
        # Directories that are as they were below are listed for what was added or deleted in them, and only then.
        ({"a/c/d": b"more"}, [BASE], ["C /a/c/d"]),
        ({"a/c/new": b""}, [BASE], ["C /a", "C /a/c", "A /a/c/new"]),
        ({"a/c/d": WHITEOUT, "a/c/e": b""}, [BASE], ["C /a", "C /a/c", "D /a/c/d", "A /a/c/e"]),
        # An opaque directory deletes what it hides, if it hides something.
        ({"a": {OPAQUE: b"y"}, "a/b": b""}, [BASE], ["D /a", "A /a/b"]),
        ({"new": {OPAQUE: b"y"}, "new/b": b""}, [BASE], ["A /new", "A /new/b"]),
        ({"a": {OPAQUE: b"n"}, "a/b": b""}, [BASE], ["C /a/b"]),
        ({"a": {OPAQUE: b"y"}, "a/c": {}}, [BASE], ["D /a", "A /a/c"]),
        # A lower that deletes a name hides it in those below.
        ({"g": b""}, [{"g": WHITEOUT}, BASE], ["A /g"]),
        ({"a/b": b""}, [{"a": WHITEOUT}, BASE], ["A /a", "A /a/b"]),
        ({"a/b": b""}, [{"a": {OPAQUE: b"y"}}, BASE], ["C /a", "A /a/b"]),
        ({"a/b": b""}, [{}, {"x": b""}, BASE], ["C /a/b"]),
        ({"g": b""}, [{"g": b""}, {"g": WHITEOUT}], ["C /g"]),
        # Another kind below: a file has no content, nor has a link.
        ({"g/in/x": b""}, [BASE], ["C /g", "A /g/in", "A /g/in/x"]),
        ({"link/x": b""}, [BASE], ["C /link", "A /link/x"]),
        ({"a": b""}, [BASE], ["C /a"]),
        ({"g/in": b""}, [{"g": b""}, {"g/in": b""}], ["C /g", "A /g/in"]),
    ],
)
def test_of_a_layer(layer: dict[str, Any], lowers: list[dict[str, Any]], expected: list[str], tmp_path: Path) -> None:
    below = [make(tmp_path / f"lower{number}", lower) for number, lower in enumerate(lowers)]
    assert layered(make(tmp_path / "layer", layer), *below) == expected


def test_a_link_in_a_lower_leads_nowhere(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", {"x": b""})
    lower = make(tmp_path / "lower", {"d": str(outside), "e": "f", "f/x": b""})
    layer = make(tmp_path / "layer", {"d/x": b"", "e/x": b""})
    assert layered(layer, lower) == ["C /d", "A /d/x", "C /e", "A /e/x"]


def test_a_directory_that_differs_is_modified(tmp_path: Path) -> None:
    lower = make(tmp_path / "lower", BASE)
    layer = make(tmp_path / "layer", {"empty": {}, "a": {}, "e": {}})
    (layer / "empty").chmod(0o700)
    os.utime(layer / "a", ns=(OLD, OLD + 10**9))
    assert layered(layer, lower) == ["C /a", "C /empty"]


def test_another_prefix_means_nothing(tmp_path: Path) -> None:
    lower = make(tmp_path / "lower", BASE)
    layer = make(tmp_path / "layer", {"a": {OPAQUE: b"y"}, "a/b": b""})
    found = between(None, str(layer), deletions=OVERLAY_MARKS, lowers=[str(lower)], xattr_prefix="trusted.overlay.")
    assert words(found) == ["C /a/b"]


def test_a_layer_without_lowers_is_as_one_over_an_empty_one(tmp_path: Path) -> None:
    empty = make(tmp_path / "empty", {})
    layer = make(tmp_path / "layer", {"a/b/c": b"", "a/gone": WHITEOUT, "a-b": {}, "gone": WHITEOUT, ".wh.x": b""})
    attribute(layer / "a", OPAQUE, b"y")
    assert layered(layer) == layered(layer, empty)
    assert layered(layer) == ["A /.wh.x", "A /a", "A /a/b", "A /a/b/c", "D /a/gone", "A /a-b", "D /gone"]
    aufs = [
        words(between(None, str(layer), deletions=AUFS_MARKS, lowers=lowers)) for lowers in ([], [str(empty)])
    ]  # fmt: skip
    assert aufs[0] == aufs[1] == ["D /x", "A /a", "A /a/b", "A /a/b/c", "A /a/gone", "A /a-b", "A /gone"]


# -- sizes


def test_the_size_counts_what_was_added_or_modified_once(tmp_path: Path) -> None:
    old = make(tmp_path / "old", {"same": b"12345", "changed": b"1", "gone": b"1234567"})
    new = copied(old, tmp_path / "new")
    make(new, {"changed": b"123", "d/new": b"1234", "link": "12"})
    os.link(new / "d/new", new / "again")
    (new / "gone").unlink()
    settle(new)
    assert diff_size(str(old), str(new), deletions=ERASE, lowers=None) == 3 + 4 + 2
    assert diff_size(None, str(new), deletions=ERASE, lowers=None) == 5 + 3 + 4 + 2


def test_the_size_of_a_layer_is_that_of_its_files(tmp_path: Path) -> None:
    lower = make(tmp_path / "lower", BASE)
    layer = make(tmp_path / "layer", {"a/b": b"123", "g": WHITEOUT, "n": b"1234", "sparse": b""})
    os.truncate(layer / "sparse", 1 << 30)
    size = diff_size(None, str(layer), deletions=OVERLAY_MARKS, lowers=[str(lower)], xattr_prefix=PREFIX)
    assert size == 3 + 4 + (1 << 30)


# -- what is left behind


def test_closing_early_closes_everything(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", BASE), make(tmp_path / "new", {"x": b""})
    before = stores.descriptors()
    for found in (
        between(str(old), str(new), deletions=ERASE, lowers=None),
        between(None, str(new), deletions=OVERLAY_MARKS, lowers=[str(old)]),
    ):
        assert next(iter(found), None) is not None
        found.close()  # type: ignore[attr-defined]
    assert stores.descriptors() == before


def test_a_tree_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        listed(None, tmp_path / "missing")


def test_changes_are_values() -> None:
    assert Change(b"/a", ADD) == Change(b"/a", ADD) != Change(b"/a", MODIFY)
    assert len({Change(b"/a", ADD), Change(b"/a", ADD)}) == 1
    assert repr(Change(b"/a", DELETE)) == "Change(b'/a', DELETE)"
