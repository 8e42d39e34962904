"""`layerhold drivers` tells the truth: each yes is a store that works, each no one that is refused for that reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import layerhold
from layerhold.drivers.survey import ALL, Answer, survey
from layerhold.errors import DriverError
from layerhold.linux import mounts
from tests import disks, stores
from tests.users import OrdinaryUser


def _proven(folder: Path) -> dict[str, Answer]:
    """Compare every answer with what comes of it, and give them by their drivers."""
    answers = survey(str(folder / "graph"))
    assert [answer.driver for answer in answers] == list(ALL)
    assert not os.listdir(folder), "something is left"
    for answer in answers:
        place = folder / "graph"
        if answer.usable:
            with layerhold.Store.open(graphroot=place, runroot=folder / "run", driver=answer.driver) as store:
                store.layers.create(store.layers.create()).delete()
                assert store.driver.maps_at_mount() == answer.idmap
                store.shutdown()
        else:
            with pytest.raises(DriverError) as refused:
                layerhold.Store.open(graphroot=place, runroot=folder / "run", driver=answer.driver)
            assert str(refused.value) == answer.reason
        stores.clear(folder / "run")
        stores.clear(place)
    return {answer.driver: answer for answer in answers}


def test_here(store_dir: Path) -> None:
    found = _proven(store_dir)
    assert found["vfs"].usable
    assert found["vfs"].ordinary_users == "yes"
    assert not found["aufs"].usable
    if os.geteuid() == 0:
        assert found["overlay"].native_diff
    else:
        assert "user namespace" in found["overlay"].reason
        assert found["overlay"].advice


@pytest.mark.root
@pytest.mark.parametrize(("kind", "reflink"), [("btrfs", True), ("xfs", True), ("ext4", False)])
def test_on_another_file_system(kind: str, reflink: bool) -> None:
    with disks.disk(kind) as place:
        for name in os.listdir(place):
            (place / name).rmdir()
        found = _proven(place)
        assert found["btrfs"].usable == found["btrfs"].quota == (kind == "btrfs")
        assert found["vfs"].reflink == reflink


@pytest.mark.root
def test_an_ordinary_user(ordinary_user: OrdinaryUser) -> None:
    inside, outside = (
        {answer["driver"]: answer for answer in json.loads(ordinary_user.layerhold("drivers", "-j", *words).stdout)}
        for words in ([], ["--unshare=false"])
    )
    assert inside["overlay"]["usable"]
    assert not inside["overlay"]["idmap"]
    assert not outside["overlay"]["usable"]
    assert "unshare" in outside["overlay"]["advice"]
    assert inside["vfs"]["usable"]
    assert outside["vfs"]["usable"]


def test_the_table(store_dir: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    from layerhold.cli.main import main

    if os.geteuid() != 0:
        pytest.skip("as an ordinary user the command goes into a namespace, which this process must not")
    assert main(["-g", str(store_dir), "drivers"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[0].split()[:3] == ["DRIVER", "USABLE", "QUOTA"]
    assert len({line.index(line.split()[1], 10) for line in lines[1 : len(ALL) + 1]}) == 1
    assert any(line.startswith("aufs: ") for line in lines)


@pytest.mark.root
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("ramfs", "takes no attributes such as trusted.overlay.opaque"),
        ("overlay", "'overlay' is not supported over overlayfs"),
    ],
)
def test_what_overlay_cannot_stand_on(store_dir: Path, kind: str, words: str) -> None:
    """It is refused with what to use instead, and leaves nothing."""
    place, parts = store_dir / "place", [store_dir / name for name in ("lower", "upper", "work")]
    for path in (place, *parts):
        path.mkdir()
    data = "lowerdir={},upperdir={},workdir={}".format(*parts) if kind == "overlay" else ""
    mounts.mount(kind, str(place), kind, 0, data)
    try:
        found = next(answer for answer in survey(str(place)) if answer.driver == "overlay")
        assert not found.usable
        assert words in found.reason
        assert "use the driver vfs" in found.advice
        with pytest.raises(DriverError) as refused:
            layerhold.Store.open(graphroot=place / "g", runroot=place / "r", driver="overlay")
        assert words in str(refused.value)
        assert "vfs" in refused.value.hint
        assert not any(path.is_file() for path in (place / "g").rglob("*") if path.name != "storage.lock")
    finally:
        mounts.umount(str(place))
