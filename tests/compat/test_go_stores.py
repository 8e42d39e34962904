"""Stores as Go's program 1.43 left them, kept in the repository: opened, checked, used, and converted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import layerhold
from layerhold.convert import convert
from tests import go_stores, stores
from tests.go_stores import BASE, TOP

pytestmark = [pytest.mark.compat, pytest.mark.root]

OTHERS = {"overlay": "vfs", "vfs": "overlay", "btrfs": "overlay"}


@pytest.fixture(params=OTHERS)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A driver, and a folder in which the graph root of its store is."""
    with go_stores.unpacked(request.param) as folder:
        yield request.param, folder


def _opened(folder: Path, root: str = "root", driver: str | None = None) -> layerhold.Store:
    return layerhold.Store.open(graphroot=folder / root, runroot=folder / "run", driver=driver)


def test_opened_checked_and_used(made: tuple[str, Path]) -> None:
    driver, folder = made
    with _opened(folder) as store:
        assert store.driver.name == driver
        go_stores.holds_all(store)
        with store.mount("box") as top:
            (top / "mine").write_text("new")
        assert {change.path for change in store.containers["box"].layer.changes()} >= {b"/mine"}
        store.containers["box"].delete()
        store.images["localhost/kept:1"].delete()
        assert list(store.layers) == []
        store.shutdown()


def test_converted(made: tuple[str, Path]) -> None:
    driver, folder = made
    convert(folder / "root", OTHERS[driver], into=folder / "new")
    with _opened(folder, "new", driver=OTHERS[driver]) as store:
        go_stores.holds_all(store)
        store.shutdown()
    place = stores.Place(folder, OTHERS[driver])
    (folder / "root").rename(folder / "old")
    (folder / "new").rename(folder / "root")
    assert {row["id"] for row in place.go_json("layers")} >= {BASE, TOP}
    assert not place.go("check", check=False).stdout
