"""The owners of a whole tree."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerhold.drivers.ownership import Counted, change_owners, plan
from layerhold.errors import StorageError
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.testing import trees
from tests import stores
from tests.owned_trees import CAPABILITY, FIRST, ROOT, SECOND, TIME, expected, fill, look


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("workers", [1, 3])
def test_all_kinds_of_files_change_hands_and_nothing_else(tmp_path: Path, workers: int) -> None:
    (tmp_path / "other").mkdir()
    tree = fill(tmp_path / "tree")
    before = look(tree)
    counted = change_owners(str(tree), None, FIRST, workers=workers)
    assert counted == Counted(files=11, changes=11, bytes=5 + 3 + 3 + 6)
    after = look(tree)
    assert trees.differences(expected(before, 100000, 200000), after) == []
    assert after[b"program"].mode == 0o6755
    assert dict(after[b"capable"].xattrs)["security.capability"] == CAPABILITY
    assert (tmp_path / "other").stat().st_uid == 0


@pytest.mark.root
@ROOT
def test_from_one_map_to_another_and_back(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    before = look(tree)
    change_owners(str(tree), None, FIRST)
    change_owners(str(tree), FIRST, SECOND)
    assert trees.differences(expected(before, 500000, 200000), look(tree)) == []
    assert change_owners(str(tree), SECOND, None).changes == 11
    assert trees.differences(before, look(tree)) == []


@pytest.mark.root
@ROOT
def test_the_top_can_be_left_alone(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    before = look(tree)
    assert change_owners(str(tree), None, FIRST, skip_root=True).files == 10
    assert trees.differences(expected(before, 100000, 200000, skip=b""), look(tree)) == []


@pytest.mark.root
@ROOT
def test_the_cost_is_told_beforehand(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    before = look(tree)
    planned = plan(str(tree), None, FIRST)
    assert look(tree) == before
    assert change_owners(str(tree), None, FIRST) == planned
    groups = IdMappings(uids=FIRST.uids, gids=(IdRange(container=0, host=0, size=200005),))
    assert plan(str(tree), FIRST, groups).changes == 11
    assert plan(str(tree), None, None) == Counted(files=11, changes=0, bytes=0)
    assert change_owners(str(tree), None, IdMappings()).changes == 0


@pytest.mark.root
@ROOT
def test_only_owners_that_differ_are_changed(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    same = IdMappings(
        uids=(IdRange(container=0, host=0, size=9), IdRange(container=9, host=700, size=1)),
        gids=(IdRange(container=0, host=0, size=50),),
    )
    before = (tree / "plain").lstat()
    assert change_owners(str(tree), None, same).changes == 1
    assert (tree / "null").lstat().st_uid == 700
    assert (tree / "plain").lstat() == before


@pytest.mark.root
@ROOT
@pytest.mark.parametrize(("old", "new"), [(None, SECOND), (SECOND, FIRST)])
def test_an_owner_without_a_map_is_an_error_and_nothing_is_changed(
    tmp_path: Path, old: IdMappings | None, new: IdMappings
) -> None:
    tree = fill(tmp_path / "tree")
    change_owners(str(tree), None, old)
    stranger = tree / "d/deep/er/last"
    stranger.write_text("")
    os.chown(stranger, 5000, 200000 if old else 0)
    before = look(tree)
    with pytest.raises(StorageError, match=r'^"d/deep/er/last": (container|host) ID 5000 cannot be mapped to a '):
        change_owners(str(tree), old, new)
    with pytest.raises(StorageError, match='"d/deep/er/last"'):
        plan(str(tree), old, new)
    assert look(tree) == before
    change_owners(str(tree), old, new, overflow=65534)
    assert (stranger.stat().st_uid, stranger.stat().st_gid) == (65534, 200000)
    assert (tree / "plain").stat().st_uid in (500001, 100001)


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_changed_is_an_error_that_names_it(tmp_path: Path, workers: int) -> None:
    tree = fill(tmp_path / "tree")
    fixed = tree / "d/deep/fixed"
    fixed.write_text("")
    if subprocess.run(["chattr", "+i", fixed], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(PermissionError) as caught:
            change_owners(str(tree), None, FIRST, workers=workers)
        assert caught.value.filename == "d/deep/fixed"
    finally:
        subprocess.run(["chattr", "-i", fixed], check=True)


@pytest.mark.root
@ROOT
def test_squash_leaves_what_cannot_be_changed(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    fixed = tree / "d/deep/fixed"
    fixed.write_text("")
    os.link(fixed, tree / "again")
    if subprocess.run(["chattr", "+i", fixed], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        counted = change_owners(str(tree), None, FIRST, squash=True)
    finally:
        subprocess.run(["chattr", "-i", fixed], check=True)
    assert (counted.files, counted.changes, counted.left) == (12, 11, 1)
    assert fixed.stat().st_uid == (tree / "again").stat().st_uid == 0
    assert (tree / "plain").stat().st_uid == 100001


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("workers", [1, 4])
def test_on_an_overlay_links_stay_links_and_directories_keep_their_times(workers: int) -> None:
    with stores.scratch("owners") as folder:
        for name in ("lower", "upper", "work", "merged"):
            (folder / name).mkdir()
        lower = fill(folder / "lower")
        for name in "pqrs":
            (lower / "d" / name).write_text(name)
        os.utime(lower / "d", ns=(TIME, TIME))
        before = look(lower)
        with overlay(folder) as merged:
            change_owners(str(merged), None, FIRST, workers=workers)
            after = look(merged)
        assert look(lower) == before
        assert (after.pop(b"").uid, before.pop(b"").uid) == (100000, 0)  # the top is the upper's own
        assert trees.differences(expected(before, 100000, 200000), after) == []
        assert after[b"d/second"].same_as == after[b"d/first"].same_as == b"d/deep/third"
        assert not [path for path in after if b".owners-" in path]


@contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    merged = folder / "merged"
    data = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    done = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", data, merged], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no overlay here: {done.stderr}")
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


@pytest.mark.root
@ROOT
def test_trees_deeper_than_a_path(tmp_path: Path) -> None:
    at = stores.nested(os.open(tmp_path, os.O_RDONLY), 600)
    try:
        for name in ("one", "two"):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.link("one", "linked", src_dir_fd=at, dst_dir_fd=at)
        before = descriptors()
        assert change_owners(str(tmp_path), None, FIRST, workers=2).changes == 603
        assert descriptors() == before
        assert os.stat("two", dir_fd=at).st_uid == os.stat("linked", dir_fd=at).st_uid == 100000
    finally:
        os.close(at)


def descriptors() -> int:
    return len(stores.descriptors())


def test_a_plan_needs_no_rights(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("123")
    mine = IdMappings(
        uids=(IdRange(container=os.geteuid(), host=700000, size=1),),
        gids=(IdRange(container=os.getegid(), host=700000, size=1),),
    )
    assert plan(str(tmp_path), None, mine) == Counted(files=2, changes=2, bytes=3)
