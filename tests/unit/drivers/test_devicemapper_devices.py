"""Transactions of the devicemapper driver: with a pool in memory, stopped after each step."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from layerhold.drivers import devicemapper_base, devicemapper_devices, devicemapper_pool, devicemapper_shown
from layerhold.drivers.devicemapper_devices import DeviceSet
from layerhold.drivers.devicemapper_metadata import BASE, Files, SetRecord, ThinDevice, Transaction
from layerhold.drivers.devicemapper_options import DmOptions
from layerhold.drivers.devicemapper_pool import Pool
from layerhold.errors import DriverError
from layerhold.linux import block
from tests import stores
from tests.unit.drivers.pools import POOL, FakeMapper, Stopped

SIZE = 1 << 20


class Home:
    """A home with a base device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mapper = FakeMapper()
        self.files = Files(str(path))
        (path / "metadata").mkdir()
        (path / "tempdirs/temp-dir-1").mkdir(parents=True)
        self.aside = str(path / "tempdirs/temp-dir-1/0-addition")
        self.pool = Pool(self.mapper, str(path), DmOptions(pool=POOL))
        self.set = DeviceSet(str(path), self.pool, self.files)
        self.base = self.set.create(self.files.path(BASE), SIZE)

    def again(self) -> DeviceSet:
        """The devices as another process finds them, after the machine was started again."""
        self.mapper.stopping = ""
        found = DeviceSet(str(self.path), self.pool, self.files)
        found.roll_back()
        return found

    def known(self) -> set[int]:
        """The IDs that files name, those aside too."""
        found = {device.id for _name, device in self.files.devices()}
        return found | {json.loads(path.read_text())["device_id"] for path in self.path.glob("tempdirs/*/[!.]*")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(devicemapper_devices, "_A_MOMENT", 0.0)
    return Home(tmp_path)


def test_a_device_is_made_in_a_transaction(home: Home) -> None:
    device = home.set.snapshot(BASE, home.base, home.aside, 2 * SIZE)
    assert device == ThinDevice(id=2, size=2 * SIZE, transaction=2)
    assert home.mapper.said == ["create_thin 1", "set_transaction_id 0 1", "create_snap 2 1", "set_transaction_id 1 2"]
    assert home.files.transaction() == Transaction(number=2, name="../tempdirs/temp-dir-1/0-addition", id=2)
    assert home.files.device_at(home.aside) == device


def test_the_base_has_no_name_in_its_transaction(home: Home) -> None:
    assert home.files.transaction() == Transaction(number=1, name="", id=1)


def test_a_source_in_use_is_held_up_meanwhile(home: Home) -> None:
    home.pool.activate(BASE, 1, SIZE)
    home.mapper.said.clear()
    home.set.snapshot(BASE, home.base, home.aside, SIZE)
    name = home.pool.device_name(BASE)
    assert home.mapper.said == [f"suspend {name}", "create_snap 2 1", "set_transaction_id 1 2", f"resume {name}"]
    home.mapper.failing["create_snap"] = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        home.set.snapshot(BASE, home.base, home.aside, SIZE)
    assert home.mapper.said[-1] == f"resume {name}"


@pytest.mark.parametrize("step", ["create_snap", "set_transaction_id"])
def test_a_device_that_is_half_made_is_undone(home: Home, step: str) -> None:
    home.mapper.stopping = step
    with pytest.raises(Stopped):
        home.set.snapshot(BASE, home.base, home.aside, SIZE)
    found = home.again()
    assert (home.mapper.thin, home.known()) == ({1: "nothing"}, {1})
    assert home.files.transaction() is None
    assert found.snapshot(BASE, home.base, home.aside, SIZE).id == 2


def test_a_device_whose_file_was_not_written_is_undone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(home.files, "write_device", stop)
    monkeypatch.setattr(home.set, "_undo", lambda *_: None)  # the machine stops: nobody tidies up
    with pytest.raises(Stopped):
        home.set.snapshot(BASE, home.base, home.aside, SIZE)
    assert home.mapper.thin == {1: "nothing", 2: "1"}
    home.again()
    assert (home.mapper.thin, home.known()) == ({1: "nothing"}, {1})


@pytest.mark.parametrize("step", ["delete", "set_transaction_id"])
def test_a_deletion_that_was_cut_short_is_ended(home: Home, step: str) -> None:
    home.set.snapshot(BASE, home.base, home.aside, SIZE)
    home.mapper.stopping = step
    with pytest.raises(Stopped):
        home.set.delete(home.aside, "layer")
    home.again()
    assert (home.mapper.thin, home.known()) == ({1: "nothing"}, {1})


def test_a_failure_leaves_nothing(home: Home) -> None:
    home.mapper.failing["set_transaction_id"] = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        home.set.snapshot(BASE, home.base, home.aside, SIZE)
    assert (home.mapper.thin, home.known()) == ({1: "nothing"}, {1})


def test_what_the_pool_refuses_is_not_left_to_who_comes_next(home: Home) -> None:
    home.mapper.failing["create_snap"] = errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        home.set.snapshot(BASE, home.base, home.aside, SIZE)
    assert (home.files.transaction(), home.known()) == (None, {1})


def test_a_device_of_somebody_else_is_never_undone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ID is taken, which the pool says; then the next try cannot be noted."""
    home.mapper.thin[2] = "somebody's"
    write = home.files.write_transaction

    def write_one(transaction: Transaction) -> None:
        if transaction.id != 2:
            raise OSError(errno.ENOSPC, "no space")
        write(transaction)

    monkeypatch.setattr(home.files, "write_transaction", write_one)
    with pytest.raises(OSError, match="no space"):
        home.set.snapshot(BASE, home.base, home.aside, SIZE)
    monkeypatch.undo()
    home.again()
    assert home.mapper.thin == {1: "nothing", 2: "somebody's"}


@pytest.mark.parametrize("step", ["mount", "retries"])
def test_a_device_that_cannot_be_shown_is_let_go(home: Home, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def detached(*_words: object, **_more: object) -> tuple[int, str]:
        if step == "mount":
            raise DriverError("broken")
        return os.open("/", os.O_RDONLY), "xfs"

    def set_retries(*_words: object) -> None:
        raise OSError(errno.ENOENT, "broken")

    monkeypatch.setattr(devicemapper_shown, "detached", detached)
    monkeypatch.setattr(devicemapper_shown, "dress", lambda *_words: True)
    monkeypatch.setattr(devicemapper_shown, "set_retries", set_retries)
    before = stores.descriptors()
    with pytest.raises((DriverError, OSError), match="broken"):
        devicemapper_shown.Shown(home.pool, home.set, BASE, home.base, id="layer", options=(), retries="0")
    assert stores.descriptors() == before
    assert not home.pool.is_active(BASE)


def test_a_base_that_could_not_grow_is_tried_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.files.write_device(home.files.path(BASE), home.base.replace(initialized=True))
    grown: list[int] = []

    def grow(_path: str, _kind: str, size: int) -> None:
        if size in grown:
            return
        grown.append(size)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(devicemapper_base, "detached", lambda *_words: (os.open("/", os.O_RDONLY), "ext4"))
    monkeypatch.setattr(block, "grow", grow)
    options = DmOptions(pool=POOL, base_size=2 * SIZE)
    base = devicemapper_base.Base(home.pool, home.set, home.files, options)
    with pytest.raises(OSError, match="broken"):
        base.prepare(verify=False)
    found = home.files.device(BASE)
    assert found is not None
    assert found.size == SIZE
    base.prepare(verify=False)
    found = home.files.device(BASE)
    assert found is not None
    assert found.size == 2 * SIZE


def test_go_rolls_back_what_is_ours_by_the_same_names(home: Home) -> None:
    """It joins the directory `metadata` and the name of the note."""
    home.set.snapshot(BASE, home.base, home.aside, SIZE)
    found = home.files.transaction()
    assert found is not None
    assert (home.path / "metadata" / found.name).resolve() == Path(home.aside)


@pytest.mark.parametrize("name", ["../../elsewhere", "deviceset-metadata", "../tempdirs/lock-1", "/etc/passwd", ".."])
def test_a_note_that_leads_elsewhere_removes_nothing_there(home: Home, name: str) -> None:
    home.files.write_set(SetRecord(uuid="kept"))
    elsewhere = home.path.parent / "elsewhere"
    for path in (elsewhere, home.path / "tempdirs/lock-1"):
        path.touch()
    home.files.write_transaction(Transaction(number=9, name=name, id=5))
    home.again()
    assert elsewhere.exists()
    assert (home.path / "tempdirs/lock-1").exists()
    assert home.files.set_record().uuid == "kept"
    assert Path("/etc/passwd").exists()


def test_a_device_that_another_file_names_is_not_deleted(home: Home) -> None:
    """Somebody rolled our change back, and gave the ID to a layer; then what speaks of the old one is swept."""
    home.set.snapshot(BASE, home.base, home.aside, SIZE)
    home.files.write_device(home.files.path("layer"), ThinDevice(id=2, size=SIZE, transaction=3))
    assert home.set.delete(home.aside, "layer")
    assert 2 in home.mapper.thin
    home.files.write_transaction(Transaction(number=9, name="other", id=2))
    home.again()
    assert 2 in home.mapper.thin


@pytest.mark.parametrize("named", [False, True], ids=["its own", "another's"])
def test_blocks_are_given_back_of_devices_that_are_deleted_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    discarded: list[str] = []
    monkeypatch.setattr(block, "discard", discarded.append)
    pool = Pool(home.mapper, str(home.path), DmOptions(pool=POOL, discard=True))
    devices = DeviceSet(str(home.path), pool, home.files)
    device = devices.snapshot(BASE, home.base, home.aside, SIZE)
    if named:
        home.files.write_device(home.files.path("layer"), device)
    assert devices.delete(home.aside, "layer")
    assert len(discarded) == (0 if named else 1)
    assert (device.id in home.mapper.thin) == named


def test_a_name_that_shows_another_device_gets_the_right_one(home: Home) -> None:
    full = home.pool.device_name("layer")
    home.pool.activate("layer", 1, SIZE)
    home.pool.activate("layer", 2, SIZE)
    assert home.mapper.shown[full].words.endswith(" 2")


def test_a_name_that_shows_another_device_in_use_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devicemapper_pool, "_BUSY_FOR", 0.0)
    full = home.pool.device_name("layer")
    home.pool.activate("layer", 1, SIZE)
    home.mapper.open.add(full)
    with pytest.raises(DriverError, match=f"{full} is in use"):
        home.pool.activate("layer", 2, SIZE)
    assert home.mapper.shown[full].words.endswith(" 1")


def test_a_transaction_that_is_ended_meanwhile_is_left_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Go program at work, which takes no lock of ours."""
    monkeypatch.setattr(devicemapper_devices, "_A_MOMENT", 5.0)
    home.mapper.thin[7] = "1"
    home.files.write_transaction(Transaction(number=2, name="of-go", id=7))
    monkeypatch.setattr("time.sleep", lambda _: home.mapper.message(POOL, "set_transaction_id 1 2"))
    home.set.roll_back()
    assert 7 in home.mapper.thin


def test_a_note_older_than_the_pool_is_left_alone(home: Home) -> None:
    home.mapper.transaction = 12
    home.again()
    assert home.mapper.thin == {1: "nothing"}
    assert home.set.snapshot(BASE, home.base, home.aside, SIZE).transaction == 13


def test_ids_that_are_taken_are_passed_over(home: Home) -> None:
    home.files.write_set(SetRecord(last_id=(1 << 24) - 2))
    home.mapper.thin |= {(1 << 24) - 1: "?", 0: "?"}  # no file speaks of them
    assert home.set.snapshot(BASE, home.base, home.aside, SIZE).id == 2
    found = home.files.transaction()
    assert found is not None
    assert found.id == 2


def test_a_device_in_use_is_left_to_others(home: Home) -> None:
    device = home.set.snapshot(BASE, home.base, home.aside, SIZE)
    home.pool.activate("layer", device.id, SIZE)
    home.mapper.open.add(home.pool.device_name("layer"))
    assert not home.set.delete(home.aside, "layer")
    home.set.put_off(home.aside)
    ((name, left),) = [(name, left) for name, left in home.files.devices() if left.deleted]
    assert (len(name), left.id) == (64, device.id)
    home.mapper.close(home.pool.device_name("layer"))
    assert home.set.delete(home.files.path(name), name)
    assert (home.mapper.thin, home.known()) == ({1: "nothing"}, {1})


def test_a_full_pool_takes_no_more(home: Home) -> None:
    home.mapper.data_used = 91
    with pytest.raises(DriverError, match="Thin Pool has 9 free data blocks which is less than minimum required 10"):
        home.set.snapshot(BASE, home.base, home.aside, SIZE)
    free = Pool(home.mapper, str(home.path), DmOptions(pool=POOL, least_free=0))
    free.refuse_if_full()


def test_devices_are_let_go_when_nobody_uses_them(home: Home) -> None:
    full = home.pool.device_name("layer")
    home.pool.activate("layer", 1, SIZE)
    home.mapper.open.add(full)
    home.pool.deactivate("layer")
    assert home.pool.is_active("layer")
    home.pool.activate("layer", 1, SIZE)
    assert not home.mapper.deferred
    home.pool.deactivate("layer")
    home.mapper.close(full)
    assert not home.pool.is_active("layer")
    home.pool.deactivate("layer")


def test_a_pool_that_is_none(home: Home) -> None:
    home.mapper.shown[POOL] = home.mapper.shown[POOL].replace(kind="linear")
    with pytest.raises(DriverError, match="devmapper: Device pool is not a thin pool"):
        home.pool.open()
    del home.mapper.shown[POOL]
    with pytest.raises(DriverError, match="the thin pool pool is not there"):
        home.pool.open()
