"""A store in a guest, which a Go program there and ours use."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import layerhold
from layerhold.convert import convert
from tests import disks, go_stores


class GuestStore:
    """The store of a driver in a folder. `options` are for both programs, `of_go` for Go's alone."""

    def __init__(self, folder: Path, driver: str, go: str, options: Sequence[str], of_go: Sequence[str] = ()) -> None:
        self.root = folder / "root"
        self.run = folder / "run"
        self.driver = driver
        self.options = tuple(options)
        self._go = go
        self._of_go = tuple(of_go)

    def opened(self, *options: str, driver: str | None = "") -> layerhold.Store:
        """Open it, with other options if some are given; `driver` None: ours is to find which it is."""
        config = layerhold.Config.load(
            graphroot=self.root, runroot=self.run, driver=self.driver if driver == "" else driver
        )
        return layerhold.Store.open(config.replace(options=options or self.options))

    def go(self, *words: str, stdin: bytes = b"") -> str:
        """What Go's program prints."""
        where = ["--graph", str(self.root), "--run", str(self.run), "--storage-driver", self.driver]
        where += [word for option in (*self._of_go, *self.options) for word in ("--storage-opt", option)]
        done = subprocess.run([self._go, *where, *words], check=False, input=stdin, capture_output=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        said = done.stderr if words == ("status",) else done.stdout
        return "\n".join(line for line in said.decode().splitlines() if not line.startswith("time="))


def use_kept(place: GuestStore) -> None:
    """Open, check, use and convert the store that is kept of a driver (go_stores.py); then have Go's program go on."""
    with place.opened() as store:
        go_stores.holds_all(store)
        with store.mount("box") as top:
            (top / "mine").write_text("new")
        assert {change.path for change in store.containers["box"].layer.changes()} >= {b"/mine"}
        store.shutdown()
    of_old = [option for option in place.options if option.startswith("zfs.")]
    with disks.disk("ext4") as disk:  # what is mounted on /run takes no `user.` attributes with this kernel
        made = convert(place.root, "overlay", into=disk / "new", options=of_old)
        with layerhold.Store.open(graphroot=made.graphroot, runroot="/run/other", driver="overlay") as store:
            go_stores.holds_all(store)
            store.shutdown()
    assert (Path(place.go("mount", "box")) / "mine").read_text() == "new"
    place.go("unmount", "box")
