"""A workbench for each driver and file system: stores in which layers are made with plain calls."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from layerhold.archive.changes import walk
from layerhold.archive.united import opened
from layerhold.comparing import tree_of
from layerhold.drivers.base import OVERLAY_MARKS, Contents, Driver, LayerSpec, MountOptions
from layerhold.drivers.choose import Place, open_driver
from layerhold.linux import mounts
from tests import disks, fuse, stores, zfs

pytest.register_assert_rewrite("layerhold.testing.driver_suite")

Tree = dict[str, bytes | None]
ROOT = pytest.mark.root


class Bench:
    """A driver in a folder, and what tests do with it."""

    def __init__(self, folder: Path, kind: str, options: Sequence[str] = ()) -> None:
        self.kind = kind
        self.options = options
        self.graphroot = folder / "graph"
        self.runroot = folder / "run"
        self.graphroot.mkdir()
        self.driver = self.open()

    def open(self, options: Sequence[str] = ()) -> Driver:
        """Open the store's driver once more, as another process would."""
        place = Place(graphroot=str(self.graphroot), runroot=str(self.runroot))
        return open_driver(self.kind, place, options=[*self.options, *options], priority=())

    def new(
        self, id: str, parent: str | None = None, tree: Tree | None = None, *, spec: LayerSpec | None = None
    ) -> None:
        """Make a layer; `tree` has the content of its files, and None for directories."""
        with self.driver.building(id, parent, spec or LayerSpec()) as build:
            write(Path(build.contents.path), tree or {})
            build.sync()
            build.publish()

    def change(self, id: str, work: Callable[[Path], object], options: MountOptions | None = None) -> None:
        """Mount a layer, do some work in it, unmount it."""
        path = self.driver.mount(id, options or MountOptions())
        try:
            work(Path(path))
        finally:
            self.driver.unmount(id)

    def tree(self, id: str, *, against: str | None = None) -> Tree:
        """Give the names in a layer; of one that has changes only, a name that it deletes is "-name"."""
        with self.driver.contents(id, against=against) as contents:
            return read(contents)

    def remove(self, *ids: str) -> None:
        """Remove layers."""
        with self.driver.trash() as trash:
            for id in ids:
                self.driver.remove(id, trash)

    def aside(self) -> list[str]:
        """Give what is left aside."""
        places = list(Path(self.driver.home).glob("tempdirs/*"))
        return sorted(place.name for place in places)


def write(top: Path, tree: Tree) -> None:
    for name, content in tree.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)


def read(contents: Contents) -> Tree:
    found: Tree = {}
    if contents.united:
        with opened(tree_of(contents)) as tree:
            for inside, is_directory, _ in walk(tree):
                found[os.fsdecode(inside)] = None if is_directory else _content(tree.open_file(inside))
        return found
    top = contents.path
    for directory, directories, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            shown = os.path.relpath(path, top)
            if contents.deletions == OVERLAY_MARKS and stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                found["-" + shown] = None
            else:
                found[shown] = Path(path).read_bytes()
        for name in directories:
            found[os.path.relpath(os.path.join(directory, name), top)] = None
    return found


def _content(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


@pytest.fixture(
    params=[
        pytest.param("overlay", marks=ROOT),
        pytest.param("overlay by fuse-overlayfs", marks=ROOT),
        pytest.param("overlay on tmpfs", marks=ROOT),
        "vfs",
        pytest.param("vfs on tmpfs", marks=ROOT),
        pytest.param("btrfs", marks=ROOT),
        pytest.param("zfs", marks=ROOT),
    ]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Every driver, on this machine's file system, on one without clones, and on the one that it needs."""
    driver, _on, filesystem = request.param.partition(" on ")
    kind, _by, program = driver.partition(" by ")
    yield from _bench(kind, filesystem, by_program=bool(program))


@pytest.fixture
def overlay() -> Iterator[Bench]:
    """The overlay driver."""
    yield from _bench("overlay", "")


@pytest.fixture
def vfs() -> Iterator[Bench]:
    """The vfs driver."""
    yield from _bench("vfs", "")


@pytest.fixture
def btrfs() -> Iterator[Bench]:
    """The btrfs driver."""
    yield from _bench("btrfs", "")


@pytest.fixture
def on_zfs() -> Iterator[tuple[Bench, zfs.Zfs]]:
    """The zfs driver, and where its datasets are."""
    with zfs.place() as place:
        yield Bench(place.folder, "zfs", place.options), place


@pytest.fixture
def by_program() -> Iterator[Bench]:
    """The overlay driver with a mount program."""
    yield from _bench("overlay", "", by_program=True)


def _bench(kind: str, filesystem: str, *, by_program: bool = False) -> Iterator[Bench]:
    if kind == "zfs":
        with zfs.place() as place:
            yield Bench(place.folder, kind, place.options)
        return
    options = [fuse.option()] if by_program else []
    with disks.scratch_for(kind) as folder:
        if filesystem:
            mounts.mount(filesystem, str(folder), filesystem)
        try:
            yield Bench(folder, kind, options)
        finally:
            for point in stores.mounts_below(folder):
                mounts.umount(point, mounts.MNT_DETACH)
