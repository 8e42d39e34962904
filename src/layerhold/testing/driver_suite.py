"""The tests that every driver has to pass, for pytest.

    from layerhold.testing.driver_suite import DriverSuite

    class TestMine(DriverSuite):
        driver = "mine"

Each test gets a store of its own in a folder (`tmp_path`; override `folder` for another file system), and does what
users of a store do: layers are made, filled, mounted, written to, compared, written out, and removed. Everything is
checked against what the tree is to be, not against another driver.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from layerhold.archive.changes import ADD, DELETE, MODIFY
from layerhold.errors import LayerHasChildren, LayerUnknown, StorageError
from layerhold.linux import mountinfo
from layerhold.store import Store
from layerhold.testing import everything, trees
from layerhold.testing.everything import Can

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.layers import Layer

_KILLED = """
import os, signal, sys
from layerhold.store import Store
store = Store.open(graphroot=sys.argv[1], runroot=sys.argv[2], driver=sys.argv[3], options=sys.argv[4:])
top = store.layers["killed"].mount()
with open(os.path.join(top, "written"), "w") as file:
    file.write("before the kill")
os.kill(os.getpid(), signal.SIGKILL)
"""


class DriverSuite:
    """What every driver does. `driver` is its name, `options` what it is opened with, `depth` how deep chains go."""

    driver: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    depth: ClassVar[int] = 60

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A directory on a file system that the driver can use."""
        return tmp_path

    @pytest.fixture
    def store(self, folder: Path) -> Iterator[Store]:
        """An empty store; what is mounted in it is unmounted at the end."""
        store = self.opened(folder)
        try:
            yield store
        finally:
            with suppress(StorageError):  # it says that there was something mounted
                self.opened(folder).shutdown(force=True)

    def opened(self, folder: Path) -> Store:
        """Open the store in `folder` once more, as another process would."""
        return Store.open(
            graphroot=folder / "graph", runroot=folder / "run", driver=self.driver, options=list(self.options)
        )

    # -- layers that come and go

    def test_a_layer_gives_back_its_tar(self, store: Store) -> None:
        """Byte for byte, whatever is in it."""
        base, top = self._layers(store)
        for layer, files in ((base, everything.base(Can.here())), (top, everything.top(Can.here()))):
            with layer.diff(compression=0) as stream:
                assert stream.read() == everything.as_tar(files)

    def test_every_kind_of_file_and_of_change(self, store: Store) -> None:
        """What a mount shows is what the specification says of these layers."""
        can = Can.here()
        base, top = self._layers(store)
        _same(base, everything.expected(everything.base(can)))
        _same(top, everything.expected(everything.base(can), everything.top(can)))

    def test_changes_name_each_difference(self, store: Store) -> None:
        """Those of a layer over its parent, the directories on the way among them."""
        can = Can.here()
        _base, top = self._layers(store)
        before = everything.expected(everything.base(can))
        after = everything.expected(everything.base(can), everything.top(can))
        said = {(change.kind, change.path[1:]) for change in top.changes()}
        directories = {b""} | {path for path, row in after.items() if row.kind == "dir"}
        gone = {path for path in before.keys() - after.keys() if path.rpartition(b"/")[0] in directories}
        # Below a directory that hides all it had, a driver may leave it at that.
        assert {path for kind, path in said if kind == DELETE} >= gone - {b"refilled/old"}
        assert {path for kind, path in said if kind == ADD} >= after.keys() - before.keys()
        same = before.keys() & after.keys()
        changed = {path for path in same if before[path]._replace(same_as=b"") != after[path]._replace(same_as=b"")}
        assert {path for _kind, path in said} >= changed
        assert not {path for _kind, path in said} & {b"b", b"b/link", b"a/setuid"}, "what is the same is named"

    def test_a_diff_written_anew_makes_the_same_tree(self, store: Store) -> None:
        """From the files alone, brought in elsewhere. (Such a tar has times in whole seconds, as Go's.)"""
        can = Can.here()
        base, top = self._layers(store)
        for layer, parent, files in (
            (base, None, [everything.base(can)]),
            (top, base, [everything.base(can), everything.top(can)]),
        ):
            with layer.diff(regenerate=True, compression=0) as stream:
                tar = stream.read()
            again = store.layers.create(parent, diff=io.BytesIO(tar))
            with again.mount() as place:
                differences = trees.differences(_seconds(everything.expected(*files)), _seconds(_inner(place)))
            assert not differences, "\n".join(differences[:20])

    def test_a_layer_written_to_by_a_mount(self, store: Store) -> None:
        """The work is in the layer, is told by `changes`, and nothing of it is in the parent."""
        can = Can.here()
        base, _top = self._layers(store)
        layer = store.layers.create(base)
        with layer.mount() as top:
            (top / "a/file").write_bytes(b"changed")
            (top / "a/empty").unlink()
            (top / "new").mkdir()
            (top / "new/file").write_bytes(b"12345")
            os.rename(top / "b/link", top / "new/moved")
        with layer.mount() as top:
            assert (top / "a/file").read_bytes() == b"changed"
            assert os.readlink(top / "new/moved") == "../a/file"
            assert not (top / "a/empty").exists()
        said = {(change.kind, change.path) for change in layer.changes()}
        assert said >= {(MODIFY, b"/a/file"), (DELETE, b"/a/empty"), (ADD, b"/new/file"), (DELETE, b"/b/link")}
        assert layer.diff_size() >= len(b"changed") + 5
        _same(base, everything.expected(everything.base(can)))
        with layer.diff(compression=0) as stream:
            tar = stream.read()
        again = store.layers.create(base, diff=io.BytesIO(tar))
        with layer.mount() as one, again.mount() as other:
            ignore = () if can.attributes else ("xattrs",)
            assert not trees.differences(_inner(one), _inner(other), ignore=("mtime_ns", *ignore))

    def test_a_deep_chain(self, store: Store) -> None:
        """Each layer adds a file and hides the one of the layer below."""
        layer: Layer | None = None
        own = (os.geteuid(), os.getegid())
        for number in range(self.depth):
            files = [everything.File(b"file-%d" % number, content=b"%d" % number, owner=own)]
            files += [everything.File(b".wh.file-%d" % (number - 1), owner=own)] if number else []
            layer = store.layers.create(layer, diff=io.BytesIO(everything.as_tar(files)))
        assert layer is not None
        with layer.mount() as top:
            assert os.listdir(top) == [f"file-{self.depth - 1}"]
            assert (top / f"file-{self.depth - 1}").read_text() == str(self.depth - 1)

    def test_layers_that_are_removed(self, store: Store, folder: Path) -> None:
        """Their files go, those of others stay, and what others stand on cannot go."""
        can = Can.here()
        base, top = self._layers(store)
        with pytest.raises(LayerHasChildren):
            base.delete()
        top.delete()
        assert list(store.driver.ids()) == [base.id]
        with pytest.raises(LayerUnknown):
            top.mount()
        _same(self.opened(folder).layers[base.id], everything.expected(everything.base(can)))
        base.delete()
        assert list(store.driver.ids()) == []
        assert not self._mounted(folder)

    def test_a_copy_stands_alone(self, store: Store) -> None:
        """Neither needs the other afterwards."""
        can = Can.here()
        _base, top = self._layers(store)
        copy = store.layers.copy(top)
        top.delete()
        _same(copy, everything.expected(everything.base(can), everything.top(can)))

    # -- crashes, and bad input

    def test_mounted_again_after_a_crash(self, store: Store, folder: Path) -> None:
        """Who is killed with a layer mounted leaves his work, and a layer that can be mounted and deleted."""
        layer = store.layers.create(store.layers.create(), names=["killed"])
        words = [sys.executable, "-c", _KILLED, str(folder / "graph"), str(folder / "run"), self.driver, *self.options]
        assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
        again = self.opened(folder).layers[layer.id]
        assert again.mount_count == 1
        with again.mount() as top:
            assert (top / "written").read_text() == "before the kill"
        assert not again.unmount()
        assert self.opened(folder).check().ok
        again.delete()

    def test_what_cannot_be_unpacked_leaves_nothing(self, store: Store, folder: Path) -> None:
        """An archive that ends too soon, or that leads out of the layer."""
        tar = everything.as_tar(everything.base(Can.here()))
        out = everything.as_tar([everything.File(b"../out", content=b"out")])
        for bad in (tar[: len(tar) // 2], out, b"no archive at all" * 100):
            with pytest.raises(StorageError):
                store.layers.create(diff=io.BytesIO(bad))
        assert list(store.layers) == []
        assert list(store.driver.ids()) == []
        assert not list(folder.rglob("out"))

    def test_a_store_that_is_checked(self, store: Store) -> None:
        """Layers with everything in them are not called damaged."""
        if not Can.here().devices:
            pytest.skip("what could not be made here (devices) counts as damage")
        self._layers(store)
        report = store.check()
        assert report.ok, vars(report)

    def _layers(self, store: Store) -> tuple[Layer, Layer]:
        can = Can.here()
        base = store.layers.create(diff=io.BytesIO(everything.as_tar(everything.base(can))))
        return base, store.layers.create(base, diff=io.BytesIO(everything.as_tar(everything.top(can))))

    def _mounted(self, folder: Path) -> set[str]:
        """Give what is mounted below the folder, but for a home that is mounted on itself."""
        points = {point for point in mountinfo.mount_points() if point.startswith(f"{os.path.realpath(folder)}/")}
        return points - {os.path.realpath(self.opened(folder).driver.home)}


def _inner(top: Path) -> dict[bytes, trees.Row]:
    """Give all rows of a tree but the one of its top."""
    found = trees.rows(top)
    del found[b""]
    return found


def _seconds(tree: dict[bytes, trees.Row]) -> dict[bytes, trees.Row]:
    """Cut times to whole seconds."""
    return {path: row._replace(mtime_ns=row.mtime_ns // 10**9) for path, row in tree.items()}


def _same(layer: Layer, wanted: dict[bytes, trees.Row]) -> None:
    """Mount a layer, and compare what is there with what is to be."""
    with layer.mount() as top:
        differences = trees.differences(wanted, _inner(top))
    assert not differences, "\n".join(differences[:20])
