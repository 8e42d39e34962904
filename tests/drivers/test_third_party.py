"""A driver of another package: found by its entry point, held to the suite, listed, and refused in words."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerhold
from layerhold.convert import convert
from layerhold.drivers.survey import survey
from layerhold.errors import DriverError, DriverNotSupported
from layerhold.testing.driver_suite import DriverSuite
from tests import aufs_store

EXAMPLE = Path(__file__).parent.parent.parent / "docs/examples/plain_driver.py"
BROKEN = """
plain = plain_driver:open_driver
broken = plain_driver:not_there
lying = plain_driver:open_driver
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as an installed package, for this process and those that it starts."""
    site = tmp_path / "site"
    info = site / "plain_driver-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-driver\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[layerhold.drivers]{BROKEN}")
    shutil.copy(EXAMPLE, site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    yield site
    sys.modules.pop("plain_driver", None)


class TestPlain(DriverSuite):
    """All that a driver has to do."""

    driver = "plain"


def _open(folder: Path, driver: str | None, *options: str) -> layerhold.Store:
    return layerhold.Store.open(graphroot=folder / "g", runroot=folder / "r", driver=driver, options=options or None)


def test_a_store_that_has_layers_of_it_is_opened_with_it(tmp_path: Path) -> None:
    layer = _open(tmp_path, "plain").layers.create(names=["mine"])
    assert _open(tmp_path, None).driver.name == "plain"
    assert _open(tmp_path, None).layers["mine"].id == layer.id
    assert json.loads((tmp_path / "g/plain-layers/layers.json").read_text())[0]["id"] == layer.id


def test_without_the_package_it_is_not_there(tmp_path: Path, installed: Path) -> None:
    _open(tmp_path, "plain").layers.create()
    shutil.rmtree(installed / "plain_driver-1.0.dist-info")
    with pytest.raises(DriverNotSupported, match="plain"):
        _open(tmp_path, "plain")


def test_what_it_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match=r"plain has no options, and got plain\.size=1"):
        _open(tmp_path, "plain", "plain.size=1")


def test_one_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="driver broken of plain_driver:not_there cannot be loaded: AttributeError"):
        _open(tmp_path, "broken")


def test_one_that_goes_by_another_name(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="the driver lying calls itself plain"):
        _open(tmp_path, "lying")
    assert not (tmp_path / "g/plain-layers").exists()


def test_it_is_listed(tmp_path: Path) -> None:
    found = {answer.driver: answer for answer in survey(str(tmp_path))}
    assert found["plain"].usable
    assert not found["broken"].usable
    assert "cannot be loaded" in found["broken"].reason


def test_stores_are_converted_to_it_and_from_it(tmp_path: Path) -> None:
    aufs_store.make(tmp_path / "old", tmp_path / "run")
    convert(tmp_path / "old", "plain", into=tmp_path / "g")
    assert _open(tmp_path, None).driver.name == "plain"
    assert _open(tmp_path, None).check().ok
    assert convert(tmp_path / "g", "vfs").old_driver == "plain"
    with layerhold.Store.open(graphroot=tmp_path / "g-vfs", runroot=tmp_path / "run2") as store:
        assert (store.driver.name, len(store.layers)) == ("vfs", 3)
        assert store.check().ok
