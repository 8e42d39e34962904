"""Root: ordinary use. What tries to get out of it is in tests/properties/test_root_attacks.py."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerhold.tree import way as module
from layerhold.tree.root import Root
from tests import stores


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with the kernel's call, and with the replacement for kernels without it."""
    if request.param == "walk":
        monkeypatch.setattr(module, "has_openat2", lambda _root: False)
    return str(request.param)


@pytest.fixture
def root(way: str, tmp_path: Path) -> Iterator[Root]:
    (tmp_path / "tree").mkdir()
    with Root(str(tmp_path / "tree")) as opened:
        yield opened


def write(root: Root, path: bytes, content: bytes) -> None:
    with open(root.create(path), "wb") as file:
        file.write(content)


def read(root: Root, path: bytes) -> bytes:
    with open(root.open_file(path), "rb") as file:
        return file.read()


def test_what_is_made_is_there(root: Root, tmp_path: Path) -> None:
    root.mkdir(b"a")
    write(root, b"a/f", b"content")
    root.link(b"a/f", b"g")
    root.symlink(b"/anywhere/at/all", b"a/l")
    root.mknod(b"p", stat.S_IFIFO | 0o600)
    tree = tmp_path / "tree"
    assert read(root, b"g") == b"content"
    assert (tree / "g").stat().st_ino == (tree / "a/f").stat().st_ino
    assert os.readlink(tree / "a/l") == "/anywhere/at/all"
    assert stat.S_ISFIFO((tree / "p").lstat().st_mode)


def test_parent_gives_directory_and_name(root: Root) -> None:
    root.mkdir(b"a")
    with root.parent(b"a/x") as (at, name):
        os.symlink(b"t", name, dir_fd=at)
    assert stat.S_ISLNK(root.lstat(b"a/x").st_mode)


@pytest.mark.parametrize("target", [b"usr/bin", b"/usr/bin", b"/../../usr/bin", b"./usr/../usr/bin", b"via"])
def test_a_link_to_a_directory_inside_is_followed(root: Root, target: bytes) -> None:
    root.make_parents(b"usr/bin/x", 0o755, None)
    root.symlink(b"usr/bin", b"via")
    root.symlink(target, b"bin")
    write(root, b"bin/sh", b"#!")
    assert read(root, b"usr/bin/sh") == b"#!"
    root.link(b"bin/sh", b"bin/bash")
    assert root.lstat(b"usr/bin/bash").st_nlink == 2


def test_the_last_name_is_not_followed(root: Root) -> None:
    write(root, b"f", b"kept")
    root.symlink(b"f", b"l")
    with pytest.raises(FileExistsError):
        root.create(b"l")
    with pytest.raises(OSError, match="regular") as caught:
        root.open_file(b"l")
    assert caught.value.errno == errno.EINVAL
    root.link(b"l", b"m")
    assert stat.S_ISLNK(root.lstat(b"m").st_mode)
    root.set_times(b"l", 1, 2)
    assert root.lstat(b"f").st_mtime_ns != 2
    assert root.lstat(b"l").st_mtime_ns == 2


@pytest.mark.parametrize("path", [b"", b".", b"..", b"a/..", b"a/."])
def test_a_name_is_needed(root: Root, path: bytes) -> None:
    root.mkdir(b"a")
    with pytest.raises(OSError, match="no name"):
        root.create(path)


def test_a_missing_or_wrong_parent(root: Root) -> None:
    write(root, b"f", b"")
    root.symlink(b"nowhere", b"dangling")
    root.symlink(b"loop", b"loop")
    with pytest.raises(FileNotFoundError):
        root.create(b"no/x")
    with pytest.raises(NotADirectoryError):
        root.create(b"f/x")
    with pytest.raises(OSError, match=r"loop|levels") as caught:
        root.create(b"loop/x")
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileExistsError):
        root.make_parents(b"dangling/x", 0o755, None)


def test_missing_parents_are_made(root: Root) -> None:
    root.mkdir(b"a", 0o700)
    root.symlink(b"a", b"l")
    root.make_parents(b"l/b/c/x", 0o751, None)
    assert stat.S_IMODE(root.lstat(b"a/b/c").st_mode) == 0o751
    assert stat.S_IMODE(root.lstat(b"a").st_mode) == 0o700


def test_the_open_directory_is_dropped_when_it_is_replaced(root: Root) -> None:
    root.make_parents(b"a/b/x", 0o755, None)
    write(root, b"a/b/f", b"old")
    root.remove(b"a")
    root.make_parents(b"a/b/x", 0o755, None)
    write(root, b"a/b/f", b"new")
    root.mkdir(b"other")
    root.symlink(b"other", b"l")
    write(root, b"l/one", b"")
    root.remove(b"l")
    root.symlink(b"a", b"l")
    write(root, b"l/two", b"")
    assert read(root, b"a/b/f") == b"new"
    assert read(root, b"a/two") == b""


def test_remove_does_not_follow_links(root: Root, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("kept")
    root.make_parents(b"a/b/x", 0o755, None)
    root.symlink(os.fsencode(outside), b"a/b/l")
    root.symlink(b"../..", b"a/b/up")
    assert root.remove(b"a")
    assert (outside / "f").read_text() == "kept"
    assert root.is_empty()
    with pytest.raises(FileNotFoundError):
        root.remove(b"a")


def test_remove_keeps_what_it_is_told_to(root: Root) -> None:
    root.make_parents(b"d/e/f/x", 0o755, None)
    write(root, b"d/e/keep", b"")
    write(root, b"d/e/go", b"")
    write(root, b"d/go", b"")
    assert not root.remove(b"d", keep=lambda path: path == b"d/e/keep")
    assert sorted(os.fsdecode(p) for p in walk(root)) == ["d", "d/e", "d/e/keep"]
    assert root.remove(b"d")


def walk(root: Root, top: bytes = b"") -> Iterator[bytes]:
    fd = root.open_directory(top)
    names = sorted(os.listdir(fd))
    os.close(fd)
    for name in names:
        path = (top + b"/" if top else b"") + os.fsencode(name)
        yield path
        if stat.S_ISDIR(root.lstat(path).st_mode):
            yield from walk(root, path)


def test_prune_works_through_a_link(root: Root) -> None:
    root.make_parents(b"usr/bin/sub/x", 0o755, None)
    root.symlink(b"usr/bin", b"bin")
    write(root, b"bin/old", b"")
    write(root, b"bin/new", b"")
    root.prune(b"bin", keep=lambda path: path == b"bin/new")
    assert list(walk(root)) == [b"bin", b"usr", b"usr/bin", b"usr/bin/new"]


def test_a_tree_deeper_than_python_recurses_can_be_removed(root: Root) -> None:
    os.close(stores.nested(root.open_directory(b""), 1500, "d"))
    assert root.remove(b"d")
    assert root.is_empty()


def test_a_tree_deeper_than_a_path_can_say_can_be_removed(root: Root) -> None:
    root.mkdir(b"d" * 200)
    os.close(stores.nested(root.open_directory(b"d" * 200), 50, "d" * 200))
    assert root.remove(b"d" * 200)
    assert root.is_empty()


def test_what_is_kept_deep_down_keeps_what_is_above_it(root: Root) -> None:
    name = b"d" * 200
    os.close(stores.nested(root.open_directory(b""), 50, "d" * 200))
    kept = b"/".join([name] * 45)
    assert not root.remove(name, keep=lambda path: path == kept)
    found = root._however_deep(kept)
    assert os.listdir(f"/proc/self/fd/{found}") == []
    os.close(found)
    assert root.remove(name)
    assert root.is_empty()


def test_attributes(root: Root) -> None:
    write(root, b"f", b"")
    root.set_xattr(b"f", b"user.a", b"1")
    assert root.xattrs(b"f")[b"user.a"] == b"1"
    root.set_directory_xattr(b"", b"user.b", b"2")
    assert root.xattrs(b"")[b"user.b"] == b"2"


def test_modes_and_owners(root: Root) -> None:
    write(root, b"f", b"")
    root.set_mode(b"f", 0o641)
    root.set_owner(b"f", os.getuid(), os.getgid())
    assert stat.S_IMODE(root.lstat(b"f").st_mode) == 0o641
    root.symlink(b"f", b"l")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
        root.set_mode(b"l", 0o777)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert stat.S_IMODE(root.lstat(b"f").st_mode) == 0o641


def test_special_files_are_not_opened(root: Root) -> None:
    root.mknod(b"p", stat.S_IFIFO | 0o600)
    for path in (b"p",):
        with pytest.raises(OSError, match="regular"):
            root.open_file(path)
    root.mkdir(b"d")
    with pytest.raises(OSError, match="regular"):
        root.open_file(b"d")


def test_filling_leaves_the_times_of_directories(way: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for path in (tmp_path / "d", tmp_path):
        os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    with Root(str(tmp_path), filling=True) as root:
        write(root, b"d/f", b"")
        write(root, b"f", b"")
        write(root, b"d/g", b"")
        fd = root.open_directory(b"d")
        os.utime(fd, ns=(3, 4))
        os.close(fd)
        write(root, b"d/h", b"")
    assert (tmp_path / "d").stat().st_mtime_ns == 4
    assert tmp_path.stat().st_mtime_ns == 2_000_000_002


def test_a_new_failure_does_not_hide_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "disk")

    root = Root(str(tmp_path))
    monkeypatch.setattr(root, "settle", fail)
    with pytest.raises(ValueError, match="first") as caught, root:
        raise ValueError("first")
    assert "disk" in caught.value.__notes__[0]


def test_an_ordinary_user_removes_what_lies_deep_and_what_is_locked(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        for path in (tmp_path, *tmp_path.parents):
            path.chmod(path.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)

    def work() -> None:
        tree = tmp_path / "tree"
        (tree / "locked/in").mkdir(parents=True)
        (tree / "locked").chmod(0o555)
        (tree / "deep").mkdir()
        os.close(stores.nested(os.open(tree / "deep", os.O_RDONLY), 30, "n" * 200))
        with Root(str(tree), filling=True) as root:
            root.mkdir(b"locked/more", 0o755)
            assert root.remove(b"deep")
            assert root.remove(b"locked/in")
        assert sorted(os.listdir(tree)) == ["locked"]
        assert stat.S_IMODE((tree / "locked").stat().st_mode) == 0o555

    as_ordinary(work)


def as_ordinary(work: Callable[[], None]) -> None:
    """Run `work` as an ordinary user: in a child that is nobody, when this is root."""
    if os.geteuid() != 0:
        work()
        return
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_ordinary_user_fills_and_reads_what_he_may_not(way: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for path in (tree, tree / "closed", tree / "closed/in", tree / "listed"):
        path.mkdir()
    (tree / "closed/in/secret").write_text("x")
    (tree / "listed/of").write_text("xyz")
    (tree / "listed").chmod(0o400)
    (tree / "closed/in/secret").chmod(0)
    (tree / "closed/in").chmod(0o555)
    (tree / "closed").chmod(0)
    if os.geteuid() == 0:
        for path in (tree, *tree.rglob("*")):
            os.chown(path, 65534, 65534)
        for path in (tmp_path, *tmp_path.parents):
            if not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)

    def work() -> None:
        with Root(str(tree), filling=True) as root:
            write(root, b"closed/in/new", b"")
            assert read(root, b"closed/in/secret") == b"x"
            root.mkdir(b"closed/gone")
            root.remove(b"closed/gone")
        with Root(str(tree)) as root:
            assert read(root, b"closed/in/secret") == b"x"
        with Root(str(tree)) as root:
            sizes = sorted(info.st_size for info in root.everything() if not stat.S_ISDIR(info.st_mode))
            assert sizes == [0, 1, 3]

    as_ordinary(work)
    assert stat.S_IMODE((tree / "closed").stat().st_mode) == 0
    (tree / "closed").chmod(0o700)
    assert stat.S_IMODE((tree / "closed/in").stat().st_mode) == 0o555
    assert stat.S_IMODE((tree / "closed/in/secret").stat().st_mode) == 0
    assert (tree / "closed/in/new").exists()
    (tree / "closed/in").chmod(0o700)


def test_links_at_the_end_are_followed_inside(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").touch()
    for name, target in (("a", "/b"), ("b", "d/c"), ("d/c", "../../../d/file"), ("round", "round"), ("to-d", "/d")):
        (tmp_path / name).symlink_to(target)
    with Root(str(tmp_path)) as root:
        assert root.lstat(root.follow(b"a")).st_ino == (tmp_path / "d/file").stat().st_ino
        with pytest.raises(OSError, match="symbolic links"):
            root.follow(b"round")
        fd = root.find_directory(b"to-d")
        assert os.fstat(fd).st_ino == (tmp_path / "d").stat().st_ino
        os.close(fd)


def test_directories_above_the_last_one_keep_their_times(tmp_path: Path) -> None:
    with Root(str(tmp_path), filling=True) as root:
        for path in (b"a", b"a/b", b"a/b/c"):
            root.mkdir(path)
            root.set_times(path, 1, 2)
        for path in (b"a/1", b"a/b/1", b"a/b/c/1", b"a/b/2", b"a/2", b"a/b/c/2", b"3"):
            os.close(root.create(path))
        root.set_times(b"a/b", 3, 4)
        os.close(root.create(b"a/b/c/3"))
    assert [os.stat(tmp_path / path).st_mtime_ns for path in ("a", "a/b", "a/b/c")] == [2, 4, 2]


def test_a_link_to_a_directory_above_is_that_directory(tmp_path: Path) -> None:
    with Root(str(tmp_path), filling=True) as root:
        root.mkdir(b"a")
        root.symlink(b"..", b"a/up")
        os.close(root.create(b"a/f"))
        os.close(root.create(b"a/up/g"))
        root.set_times(b"a/up/a", 1, 2)
        os.close(root.create(b"a/h"))
    assert sorted(os.listdir(tmp_path)) == ["a", "g"]
    assert os.stat(tmp_path / "a").st_mtime_ns == 2


def test_few_directories_are_open_however_deep(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Root(str(tmp_path)) as root:
        path = b"d"
        for _ in range(100):
            root.mkdir(path)
            path += b"/d"
        assert len(os.listdir("/proc/self/fd")) - before < 20
        os.close(root.create(path))
    assert len(os.listdir("/proc/self/fd")) == before
