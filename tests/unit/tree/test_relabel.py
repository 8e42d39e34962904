"""Labels of trees, as the attribute that they are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layerhold.errors import BadLabel
from layerhold.linux import selinux
from layerhold.tree import walk
from layerhold.tree.files import remove_tree
from layerhold.tree.relabel import relabel
from tests import stores

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """SELinux."""
    monkeypatch.setattr(selinux, "enabled", lambda: True)


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux, "enabled", lambda: False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/file").touch()
    (top / "a/b/same").hardlink_to(top / "a/file")
    (top / "link").symlink_to("../outside")
    (top / "to-directory").symlink_to("../outside-directory")
    os.mkfifo(top / "pipe")
    (tmp_path / "outside").touch()
    (tmp_path / "outside-directory").mkdir()
    (tmp_path / "outside-directory/file").touch()
    try:
        selinux.set_file_label(str(tmp_path / "outside"), "u:r:outside_t:s0")
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
            raise
        pytest.skip(f"no labels can be set here: {error}")
    return top


def label_of(path: Path) -> str:
    return selinux.file_label(str(path))


@pytest.mark.root
def test_relabel_reaches_everything_and_nothing_outside(on: None, tree: Path) -> None:
    relabel(str(tree), LABEL)
    assert {label_of(path) for path in (tree, *tree.rglob("*"))} == {LABEL}
    assert label_of(tree.parent / "outside") == "u:r:outside_t:s0"
    assert label_of(tree.parent / "outside-directory") == label_of(tree.parent / "outside-directory/file") == ""


@pytest.mark.root
def test_relabel_sets_each_inode_once_and_the_directory_last(
    on: None, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        selinux,
        "set_file_label",
        lambda path, _label: seen.append(os.fstat(path) if isinstance(path, int) else os.lstat(path)),
    )
    relabel(str(tree), LABEL)
    inodes = [info.st_ino for info in seen]
    assert len(inodes) == len(set(inodes)) == 7
    assert inodes[-1] == tree.stat().st_ino


@pytest.mark.root
def test_relabel_one_file_or_link(on: None, tree: Path) -> None:
    relabel(str(tree / "link"), LABEL)
    relabel(str(tree / "a/file"), LABEL)
    assert label_of(tree / "link") == label_of(tree / "a/file") == LABEL
    assert label_of(tree / "a") == ""


def test_relabel_says_nothing_where_there_are_no_labels(
    off: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relabel(str(tmp_path / "nothing"), LABEL)
    monkeypatch.setattr(selinux, "enabled", lambda: True)
    relabel(str(tmp_path / "nothing"), "")

    def refuse(path: str | int, label: str) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(selinux, "set_file_label", refuse)
    (tmp_path / "file").touch()
    relabel(str(tmp_path), LABEL)


@pytest.mark.root
def test_relabel_goes_deep_with_few_directories_open(on: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, deep = os.getcwd(), 1500
    top = tmp_path / "deep"
    top.mkdir()
    os.chdir(top)
    try:
        for _ in range(deep):
            os.mkdir("d")
            os.chdir("d")
        Path("file").touch()
        os.chdir(here)
        before = len(stores.descriptors())
        opened = []
        real = selinux.set_file_label

        def counting(path: str | int, label: str) -> None:
            opened.append(len(os.listdir("/proc/self/fd")))
            real(path, label)

        monkeypatch.setattr(selinux, "set_file_label", counting)
        relabel(str(top), LABEL)
        assert len(opened) == deep + 2
        assert max(opened) < before + walk.KEPT_OPEN + 10
        assert len(stores.descriptors()) == before
    finally:
        os.chdir(here)
        remove_tree(str(top))


@pytest.mark.parametrize("path", ["/", "/usr/", "/../etc", "/home", "/home/somebody", "LINK"])
def test_what_the_machine_needs_keeps_its_labels(
    on: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(selinux, "set_file_label", lambda *_words: pytest.fail("labelled"))
    (tmp_path / "link").symlink_to("/usr")
    place = path.replace("LINK", str(tmp_path / "link/."))
    with pytest.raises(BadLabel, match=r"relabelling /.* is not allowed"):
        relabel(place, LABEL)
