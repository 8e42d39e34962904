"""copy_tree with other owners, and what that takes."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from layerhold.drivers.ownership import Counted, plan
from layerhold.errors import StorageError
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.ids.owners import Owners
from layerhold.testing import trees
from layerhold.tree.copy import copy_tree
from tests import stores
from tests.owned_trees import CAPABILITY, FIRST, ROOT, SECOND, expected, fill, look


def copied(
    tree: Path, old: IdMappings | None, new: IdMappings | None, *, keep_top: bool = False, squash: bool = False
) -> Path:
    """Copy a tree to a new place beside it."""
    place = tree.parent / f"{tree.name}'"
    place.mkdir()
    copy_tree(str(tree), str(place), owners=Owners(old, new), keep_top=keep_top, squash=squash)
    return place


@pytest.mark.root
@ROOT
def test_all_kinds_of_files_change_hands_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    tree = fill(tmp_path / "tree")
    before = look(tree)
    after = look(copied(tree, None, FIRST))
    assert look(tree) == before
    assert trees.differences(expected(before, 100000, 200000), after) == []
    assert after[b"program"].mode == 0o6755
    assert dict(after[b"capable"].xattrs)["security.capability"] == CAPABILITY
    assert after[b"d/second"].same_as == after[b"d/first"].same_as == b"d/deep/third"
    assert (tmp_path / "other").stat().st_uid == 0


@pytest.mark.root
@ROOT
def test_from_one_map_to_another_and_back(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    before = look(tree)
    second = copied(copied(tree, None, FIRST), FIRST, SECOND)
    assert trees.differences(expected(before, 500000, 200000), look(second)) == []
    assert trees.differences(before, look(copied(second, SECOND, None))) == []


@pytest.mark.root
@ROOT
def test_the_top_can_be_left_alone(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    os.chown(tree, 5000, 5000)  # nobody, by these maps
    before = look(tree)
    assert plan(str(tree), None, FIRST, skip_root=True).files == 10
    after = look(copied(tree, None, FIRST, keep_top=True))
    assert trees.differences(expected(before, 100000, 200000, skip=b""), after) == []
    with pytest.raises(StorageError, match=r'^"/": '):
        plan(str(tree), None, FIRST)


@pytest.mark.root
@ROOT
def test_the_cost_is_told_beforehand(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    before = look(tree)
    assert plan(str(tree), None, FIRST) == Counted(files=11, changes=11, bytes=5 + 3 + 3 + 6)
    assert look(tree) == before
    tree = copied(tree, None, FIRST)
    groups = IdMappings(uids=FIRST.uids, gids=(IdRange(container=0, host=0, size=200005),))
    assert plan(str(tree), FIRST, groups).changes == 11
    assert plan(str(tree), None, None) == Counted(files=11, changes=0, bytes=0)
    assert plan(str(tree), None, IdMappings()).changes == 0


@pytest.mark.root
@ROOT
def test_only_owners_that_differ_are_changed(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    same = IdMappings(
        uids=(IdRange(container=0, host=0, size=9), IdRange(container=9, host=700, size=1)),
        gids=(IdRange(container=0, host=0, size=50),),
    )
    assert plan(str(tree), None, same).changes == 1
    before, after = look(tree), look(copied(tree, None, same))
    assert after[b"null"].uid == 700
    assert after.pop(b"null")._replace(uid=9) == before.pop(b"null")
    assert after == before


@pytest.mark.root
@ROOT
@pytest.mark.parametrize(("old", "new"), [(None, SECOND), (SECOND, FIRST)])
def test_an_owner_without_a_map_is_an_error(tmp_path: Path, old: IdMappings | None, new: IdMappings) -> None:
    tree = copied(fill(tmp_path / "tree"), None, old)
    stranger = tree / "d/deep/er/last"
    stranger.write_text("")
    os.chown(stranger, 5000, 200000 if old else 0)
    before = look(tree)
    with pytest.raises(StorageError, match=r'^"d/deep/er/last": (container|host) ID 5000 cannot be mapped to a '):
        copied(tree, old, new)
    with pytest.raises(StorageError, match='"d/deep/er/last"'):
        plan(str(tree), old, new)
    assert look(tree) == before


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not know the user 100004, who is to own `d`, nor 100006, who is to own `d/first`."""
    chown = os.chown

    def refuse(path: int | str, uid: int, gid: int, **how: bool) -> None:
        if uid in (100004, 100006):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        chown(path, uid, gid, **how)

    monkeypatch.setattr(os, "chown", refuse)


@pytest.mark.root
@ROOT
def test_what_cannot_be_changed_is_an_error_that_names_it(tmp_path: Path, refusing: None) -> None:
    with pytest.raises(OSError, match="copying: Invalid argument") as caught:
        copied(fill(tmp_path / "tree"), None, FIRST)
    assert caught.value.filename in ("d/deep/third", "d")


@pytest.mark.root
@ROOT
def test_squash_leaves_what_cannot_be_changed(tmp_path: Path, refusing: None) -> None:
    after = look(copied(fill(tmp_path / "tree"), None, FIRST, squash=True))
    assert (after[b"d"].uid, after[b"d"].gid, after[b"d"].mode) == (4, 7, 0o3775)
    assert after[b"d/first"].uid == after[b"d/second"].uid == 6
    assert after[b"plain"].uid == 100001


@pytest.mark.root
@ROOT
def test_trees_deeper_than_a_path(tmp_path: Path) -> None:
    for name in ("tree", "copy"):
        (tmp_path / name).mkdir()
    at = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(600):
        os.mkdir("long-name", dir_fd=at)
        below = os.open("long-name", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    try:
        for name in ("one", "two"):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.link("one", "linked", src_dir_fd=at, dst_dir_fd=at)
        before = descriptors()
        assert plan(str(tmp_path / "tree"), None, FIRST).changes == 603
        copy_tree(str(tmp_path / "tree"), str(tmp_path / "copy"), owners=Owners(None, FIRST))
        assert plan(str(tmp_path / "copy"), FIRST, None).changes == 603
        assert descriptors() == before
    finally:  # pytest's own clearing up does not reach the end of a deep tree
        os.close(at)
        subprocess.run(["rm", "-rf", tmp_path / "tree", tmp_path / "copy"], check=True)


def descriptors() -> int:
    return len(stores.descriptors())


def test_a_plan_needs_no_rights(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("123")
    mine = IdMappings(
        uids=(IdRange(container=os.geteuid(), host=700000, size=1),),
        gids=(IdRange(container=os.getegid(), host=700000, size=1),),
    )
    assert plan(str(tmp_path), None, mine) == Counted(files=2, changes=2, bytes=3)
