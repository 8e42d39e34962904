"""Which driver a store gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerhold.drivers import choose
from layerhold.drivers.base import Driver
from layerhold.errors import DriverError, DriverNotSupported, DriverPrerequisites
from layerhold.linux.mountinfo import filesystem_of
from tests.programs import Unavailable


@pytest.fixture(autouse=True)
def no_overlay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let overlay be refused, so that nothing is mounted here."""

    def refuse(name: str, place: choose.Place, options: object) -> Driver:
        if name in ("overlay", "overlay2"):
            raise DriverPrerequisites(f"{choose._overlay_home(name, place.graphroot)} refused")
        return real(name, place, options)  # type: ignore[arg-type]

    real = choose._open
    monkeypatch.setattr(choose, "_open", refuse)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that is not on btrfs."""
    if filesystem_of(str(tmp_path)) == "btrfs":
        raise Unavailable("the folder for temporary files is on btrfs")
    return tmp_path


def chosen(graphroot: Path, name: str | None = None, priority: tuple[str, ...] = ()) -> str:
    runroot = str(graphroot) + "-run"
    return choose.open_driver(
        name, choose.Place(graphroot=str(graphroot), runroot=runroot), options=(), priority=priority
    ).name


@pytest.mark.parametrize("name", ["foo", "vfs2", "..", "overlay/x"])
def test_unknown_driver_is_refused_in_gos_words_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(DriverNotSupported) as raised:
        chosen(tmp_path, name)
    assert str(raised.value) == f"failed to GetDriver graph {name} {tmp_path}: driver not supported"
    assert os.listdir(tmp_path) == []


def test_a_driver_without_a_store_of_it_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(DriverNotSupported, match="failed to GetDriver graph"):
        chosen(tmp_path, "aufs")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def without_zfs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the programs of zfs be missing, as on most machines."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("programs")))


@pytest.mark.usefixtures("without_zfs")
def test_zfs_without_its_programs_is_refused_in_gos_words_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(DriverPrerequisites, match=r"^the .zfs. command is not available: prereq") as raised:
        chosen(tmp_path, "zfs")
    assert "zfsutils-linux" in raised.value.hint
    assert os.listdir(tmp_path) == []


def test_first_that_can_be_used(elsewhere: Path) -> None:
    assert chosen(elsewhere) == "vfs"


def test_priority_is_followed(tmp_path: Path) -> None:
    with pytest.raises(DriverNotSupported, match=r"zfs: .*; overlay: overlay refused"):
        chosen(tmp_path, priority=("zfs", "overlay"))
    assert chosen(tmp_path, priority=("overlay", "vfs")) == "vfs"


def test_driver_that_the_store_has_goes_before_the_priority(tmp_path: Path) -> None:
    (tmp_path / "overlay/abc").mkdir(parents=True)
    with pytest.raises(DriverPrerequisites):
        chosen(tmp_path, priority=("vfs",))


def test_explicit_driver_goes_before_what_the_store_has(tmp_path: Path) -> None:
    (tmp_path / "overlay/abc").mkdir(parents=True)
    assert chosen(tmp_path, "vfs") == "vfs"


def test_home_without_layers_is_tried_first(tmp_path: Path) -> None:
    (tmp_path / "overlay/l").mkdir(parents=True)
    (tmp_path / "overlay/.has-mount-program").touch()
    with pytest.raises(DriverNotSupported, match=r"^overlay: .*; zfs: "):
        chosen(tmp_path, priority=("zfs",))
    assert chosen(tmp_path, priority=("overlay", "vfs")) == "vfs"
    assert chosen(tmp_path, priority=("overlay", "vfs")) == "vfs"


def test_other_errors_than_refusals_are_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="does not support mount options"):
        choose.open_driver(
            None,
            choose.Place(graphroot=str(tmp_path), runroot=str(tmp_path)),
            options=("vfs.mountopt=x",),
            priority=("vfs", "overlay"),
        )


def test_empty_homes_do_not_count(elsewhere: Path) -> None:
    for name in ("zfs", "devicemapper", "overlay", "btrfs"):
        (elsewhere / name).mkdir()
    assert chosen(elsewhere) == "vfs"


def test_two_drivers_with_layers_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "overlay/abc").mkdir(parents=True)
    (tmp_path / "vfs/dir/abc").mkdir(parents=True)
    with pytest.raises(DriverError, match="contains several valid graphdrivers: overlay, vfs"):
        chosen(tmp_path)


@pytest.mark.usefixtures("without_zfs")
def test_a_store_of_zfs_is_known_by_its_records(elsewhere: Path) -> None:
    """Its layers are no files."""
    (elsewhere / "zfs/graph/abc").mkdir(parents=True)
    (elsewhere / "zfs-layers").mkdir()
    for records in ("[]", "null\n"):
        (elsewhere / "zfs-layers/layers.json").write_text(records)
        assert chosen(elsewhere) == "vfs"
    (elsewhere / "zfs-layers/layers.json").write_text('[{"id":"abc"}]')
    with pytest.raises(DriverPrerequisites, match="the 'zfs' command is not available"):
        chosen(elsewhere)


def test_driver_on_a_file_system_that_it_cannot_use_makes_nothing(elsewhere: Path) -> None:
    with pytest.raises(DriverPrerequisites) as raised:
        chosen(elsewhere, "btrfs")
    assert str(raised.value) == (
        f'"{elsewhere}/btrfs" is not on a btrfs filesystem: prerequisites for driver not satisfied (wrong filesystem?)'
    )
    assert os.listdir(elsewhere) == []


def test_home_with_layers_on_a_file_system_that_the_driver_cannot_use(elsewhere: Path) -> None:
    (elsewhere / "btrfs/subvolumes").mkdir(parents=True)
    assert chosen(elsewhere) == "vfs"
    (elsewhere / "btrfs/subvolumes/abc").mkdir()
    with pytest.raises(DriverPrerequisites):
        chosen(elsewhere)


def test_home_that_go_made_under_overlays_other_name(tmp_path: Path) -> None:
    with pytest.raises(DriverPrerequisites, match="overlay refused"):
        chosen(tmp_path, "overlay2")
    (tmp_path / "overlay2/abc").mkdir(parents=True)
    for name in ("overlay2", None):
        with pytest.raises(DriverPrerequisites, match="overlay2 refused"):
            chosen(tmp_path, name)


@pytest.mark.parametrize("name", ["base", "deviceset-metadata"])
def test_a_layer_may_be_called_as_a_file_of_devicemapper(tmp_path: Path, name: str) -> None:
    (tmp_path / "vfs/dir" / name).mkdir(parents=True)
    assert choose.prior(str(tmp_path)) == "vfs"
