"""Known attacks, replayed against Root and the extractor: nothing outside the root changes.

Each attack is a list of steps as a hostile archive could ask for them. Some fail, some succeed harmlessly inside; what
counts is that the directory beside the root stays as it was, and that nothing of it can be read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from layerhold.tree import way as module
from layerhold.tree.root import Root

Step = Callable[[Root], object]


def put(path: bytes) -> Step:
    def step(root: Root) -> None:
        fd = root.create(path)
        os.write(fd, b"evil")
        os.close(fd)

    return step


def link_to(target: bytes, path: bytes) -> Step:
    return lambda root: root.symlink(target, path)


def hard(target: bytes, path: bytes) -> Step:
    return lambda root: root.link(target, path)


def directory(path: bytes) -> Step:
    return lambda root: root.mkdir(path)


def gone(path: bytes) -> Step:
    return lambda root: root.remove(path)


def all_set(path: bytes) -> list[Step]:
    return [
        lambda root: root.set_owner(path, 12345, 12345),
        lambda root: root.set_mode(path, 0o4777),
        lambda root: root.set_times(path, 1, 1),
        lambda root: root.set_xattr(path, b"user.evil", b"1"),
        lambda root: root.set_directory_xattr(path, b"user.evil", b"1"),
        lambda root: root.prune(path, keep=lambda _path: False),
        lambda root: os.close(root.open_file(path)),
        lambda root: root.make_parents(path + b"/x/y", 0o755, None),
    ]


# "OUT" stands for the directory outside, absolute; the root is beside it as "tree".
ATTACKS: dict[str, list[Step]] = {
    "dotdot": [put(b"../outside/evil"), put(b"../../evil"), directory(b"../evil")],
    "dotdot in the middle": [directory(b"a"), put(b"a/../../outside/evil"), put(b"a/../../../outside/evil")],
    "absolute name": [put(b"/OUT/evil"), put(b"OUT/evil")],
    "link to outside, then below it": [link_to(b"OUT", b"a"), put(b"a/evil"), directory(b"a/evil"), gone(b"a/secret")],
    "link up, then below it": [link_to(b"../outside", b"a"), put(b"a/evil"), gone(b"a/secret")],
    "link by link": [
        link_to(b"..", b"a"),
        link_to(b"a/outside", b"b"),
        put(b"b/evil"),
        link_to(b"a/../../outside", b"c"),
        put(b"c/evil"),
    ],
    "write through a link": [link_to(b"OUT/secret", b"f"), put(b"f"), *all_set(b"f")],
    "write through a dangling link": [link_to(b"OUT/evil", b"f"), put(b"f"), directory(b"f")],
    "settings through a directory link": [link_to(b"OUT", b"d"), *all_set(b"d"), *all_set(b"d/secret")],
    "hard link to outside": [
        hard(b"../outside/secret", b"h"),
        hard(b"/OUT/secret", b"h"),
        link_to(b"OUT", b"l"),
        hard(b"l/secret", b"h"),
        *all_set(b"h"),
    ],
    "hard link to a link": [link_to(b"OUT/secret", b"l"), hard(b"l", b"h"), put(b"h"), *all_set(b"h")],
    "remove through a link": [link_to(b"OUT", b"l"), gone(b"l/secret"), gone(b"l")],
    "directory becomes a link": [
        directory(b"a"),
        put(b"a/one"),
        gone(b"a"),
        link_to(b"OUT", b"a"),
        put(b"a/evil"),
        *all_set(b"a/secret"),
    ],
    "parent of the open directory becomes a link": [
        directory(b"a"),
        directory(b"a/outside"),
        put(b"a/outside/one"),
        gone(b"a"),
        link_to(b"..", b"a"),
        put(b"a/outside/evil"),
        gone(b"a/outside/secret"),
    ],
    "proc": [
        link_to(b"/proc/self/root", b"p"),
        put(b"p/OUT/evil"),
        link_to(b"/proc/self/cwd", b"q"),
        put(b"q/outside/evil"),
    ],
    "long names": [put(b"x" * 300), put(b"/".join([b"d"] * 3000)), directory(b"y/" * 2500 + b"z")],
    "NUL": [put(b"../outside/evil\0x"), put(b"a\0/../../outside/evil"), directory(b"d\0e"), put(b"d\0e/f")],
    "loops": [link_to(b"a", b"a"), put(b"a/x"), link_to(b"c", b"b"), link_to(b"b", b"c"), put(b"b/x"), gone(b"b")],
    "many links": [link_to(b"." if n == 0 else b"l%d" % (n - 1), b"l%d" % n) for n in range(60)] + [put(b"l59/x")],
}


def snapshot(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in (top, *sorted(top.rglob("*"))):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (
            info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_ctime_ns, content, os.listxattr(path)
        )  # fmt: skip
    return found


@pytest.mark.parametrize("way", ["openat2", "walk"])
@pytest.mark.parametrize("filling", [True, False])
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_outside_changes(
    name: str, filling: bool, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "walk":
        monkeypatch.setattr(module, "has_openat2", lambda _root: False)
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    tree.mkdir()
    (outside / "secret").write_bytes(b"secret")
    monkeypatch.chdir(tmp_path)
    before = snapshot(outside)
    fill = _Filled(os.fsencode(outside))
    with Root(str(tree), filling=filling) as root:
        for step in ATTACKS[name]:
            try:
                step(fill.wrap(root))
            except (OSError, ValueError):
                continue
    assert snapshot(outside) == before
    assert sorted(os.listdir(tmp_path)) == ["outside", "tree"]
    for base, _directories, files in os.walk(tree):
        for file in files:
            path = Path(base, file)
            assert path.is_symlink() or path.read_bytes() != b"secret"


class _Filled:
    """Puts the true path of the directory outside in place of OUT in what the steps ask for."""

    def __init__(self, outside: bytes) -> None:
        self._outside = outside

    def wrap(self, root: Root) -> Root:
        outer = self

        class Wrapped:
            def __getattr__(self, method: str) -> Callable[..., object]:
                def call(*args: object, **kwargs: object) -> object:
                    return getattr(root, method)(*(outer._fill(arg) for arg in args), **kwargs)

                return call

        return Wrapped()  # type: ignore[return-value]

    def _fill(self, arg: object) -> object:
        if isinstance(arg, bytes):
            return arg.replace(b"/OUT", self._outside).replace(b"OUT", self._outside)
        return arg


@pytest.mark.parametrize("way", ["openat2", "walk"])
def test_a_directory_swapped_for_a_link_meanwhile(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process exchanges a directory and a link that leads out, as fast as it can."""
    if way == "walk":
        monkeypatch.setattr(module, "has_openat2", lambda _root: False)
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (tree / "d").mkdir(parents=True)
    (tree / "l").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        from layerhold.linux.files import RENAME_EXCHANGE, renameat2

        while not stop.is_set():
            renameat2(str(tree / "d"), str(tree / "l"), RENAME_EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(1500):
            with Root(str(tree)) as root:
                try:
                    os.close(root.create(b"d/f%d" % number))
                    root.set_mode(b"d/f%d" % number, 0o600)
                    root.set_mode(b"d", 0o755)
                except OSError:
                    continue
    finally:
        stop.set()
        thread.join()
    assert os.listdir(outside) == []
    assert (tree / "d").exists()
