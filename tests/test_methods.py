"""The table of the Go library's methods: all of them, and each with something of ours that is there, or a reason."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import layerhold
from layerhold.collection import BigData
from layerhold.containers import Containers
from layerhold.images import Images
from layerhold.layers import Layers
from layerhold.store import Store

TABLE = Path(__file__).resolve().parent.parent / "docs" / "compatibility.md"
PLACES = {"BigData": BigData, "Containers": Containers, "Images": Images, "Layers": Layers}
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in TABLE.read_text().partition("## The methods of the Go library")[2].splitlines()
    if re.match(r"\| `[A-Z]", line)
]
# What the interface of 1.12.13 has, and what 1.64.0 has more (pkg.go.dev: containers/storage, type Store).
OLD, NEW = 65, 24


def test_all_methods_are_there_once() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS) == OLD + NEW


def test_no_cell_is_empty() -> None:
    assert [row for row in ROWS if len(row) != 3 or not all(row)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_ours_exists(row: tuple[str, str, str]) -> None:
    if row[1] == "*not offered*":
        assert len(row[2]) > 5, "the reason is missing"
        return
    assert exists(row[1].strip("`"))


def exists(name: str) -> bool:
    """Whether `Class.attribute`, or `module.Class.attribute`, is there, as a method, a property or a field."""
    *place, owner, attribute = name.split(".")
    if place:
        found = getattr(import_module(f"layerhold.{'.'.join(place)}"), owner)
    else:
        found = PLACES.get(owner) or getattr(layerhold, owner)
    return hasattr(found, attribute) or attribute in (
        *getattr(found, "_fields", ()),
        *getattr(found, "__annotations__", ()),
        *fields_of_objects(found),
    )


def fields_of_objects(found: type) -> set[str]:
    """What the constructor of a class sets."""
    source = Path(import_module(found.__module__).__file__ or "").read_text()
    return set(re.findall(r"self\.(\w+)(?:: [^=]+)? = ", source)) if found in (Store, Layers) else set()


def test_a_name_that_is_not_there_is_found_out() -> None:
    assert not exists("Layers.no_such_method")
    assert not exists("Store.no_such_field")
