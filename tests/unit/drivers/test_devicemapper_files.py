"""The files and options of the devicemapper driver."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerhold.drivers.devicemapper_metadata import _DEVICE as KEYS
from layerhold.drivers.devicemapper_metadata import (
    Files,
    SetRecord,
    ThinDevice,
    Transaction,
    decoded,
    encoded,
    is_layer,
)
from layerhold.drivers.devicemapper_options import DmOptions, parse_dm
from layerhold.errors import BadConfig, DamagedFile, DriverNotSupported
from layerhold.store import Store

OF_GO = {
    "a" * 64: b'{"device_id":2,"size":335544320,"transaction_id":2,"initialized":false,"deleted":false}',
    "base": b'{"device_id":1,"size":335544320,"transaction_id":1,"initialized":true,"deleted":false}',
    "deviceset-metadata": (
        b'{"next_device_id":1,"BaseDeviceUUID":"5a49c6e0-f409-4164-bbd1-8fe209225b4b","BaseDeviceFilesystem":"xfs"}'
    ),
    "transaction-metadata": b'{"open_transaction_id":1,"device_hash":"","device_id":1}',
}
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "metadata").mkdir()
    for name, content in OF_GO.items():
        (tmp_path / "metadata" / name).write_bytes(content)
    return Files(str(tmp_path))


def test_what_go_wrote_is_read_and_written_again_byte_for_byte(files: Files) -> None:
    base, layer = files.device("base"), files.device("a" * 64)
    assert base == ThinDevice(id=1, size=335544320, transaction=1, initialized=True)
    assert layer == ThinDevice(id=2, size=335544320, transaction=2)
    record, transaction = files.set_record(), files.transaction()
    assert record == SetRecord(last_id=1, uuid="5a49c6e0-f409-4164-bbd1-8fe209225b4b", kind="xfs")
    assert transaction == Transaction(number=1, name="", id=1)
    files.write_device(files.path("base"), base)
    files.write_device(files.path("a" * 64), layer)
    files.write_set(record)
    files.write_transaction(transaction)
    assert {name: Path(files.path(name)).read_bytes() for name in os.listdir(files.directory)} == OF_GO
    assert {os.stat(files.path(name)).st_mode & 0o777 for name in OF_GO} <= {0o600, 0o644}


def test_which_files_are_devices(files: Files) -> None:
    for name in (".tmp123", "json.migrated"):
        Path(files.path(name)).write_bytes(b"no JSON")
    assert files.names() == ["a" * 64, "base"]
    assert files.device("missing") is None
    assert not is_layer("base")


@given(
    known=st.fixed_dictionaries(
        {},
        optional={
            "device_id": st.integers(0, 2**24 - 1),
            "size": st.integers(0, 2**63),
            "transaction_id": st.integers(0, 2**63),
            "initialized": st.booleans(),
            "deleted": st.booleans(),
        },
    ),
    others=st.dictionaries(st.text().filter(lambda key: key not in KEYS), JSON),
)
def test_unknown_keys_are_kept(known: dict[str, Any], others: dict[str, Any]) -> None:
    text = json.dumps(known | others).encode()
    device = ThinDevice(**decoded(text, KEYS))
    again = json.loads(encoded(device.replace(deleted=True), KEYS))
    assert again == {
        "device_id": 0,
        "size": 0,
        "transaction_id": 0,
        "initialized": False,
        **known,
        **others,
        "deleted": True,
    }
    assert ThinDevice(**decoded(encoded(device, KEYS), KEYS)) == device


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"device_id":"1"}', b'{"device_id":-1}', b'{"device_id":16777216}',
        b'{"device_id":true}', b'{"size":1.5}', b'{"deleted":0}', b"\xff", b'{"size":null}',
    ],
)  # fmt: skip
def test_damaged_files_are_named(files: Files, content: bytes) -> None:
    path = Path(files.path("a" * 64))
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=str(path)):
        files.device("a" * 64)


def test_options() -> None:
    assert parse_dm([]) == DmOptions()
    given = [
        "test=true", "dm.basesize=20G", "dm.loopdatasize=1g", "dm.loopmetadatasize=16M", "dm.fs=ext4",
        "dm.mkfsarg=-K", "dm.mkfsarg=-q", "dm.mountopt=nodev,discard", "devicemapper.mountopt=noatime",
        "dm.thinpooldev=/dev/mapper/mine", "dm.blkdiscard=false", "dm.blocksize=128K", "dm.min_free_space=5%",
        "dm.use_deferred_removal=0", "dm.use_deferred_deletion=F", "dm.xfs_nospace_max_retries=3",
        "dm.override_udev_sync_check=true", "dm.libdm_log_level=2", "overlay.mountopt=nodev",
    ]  # fmt: skip
    assert parse_dm(given) == DmOptions(
        base_size=20 << 30,
        data_size=1 << 30,
        metadata_size=16 << 20,
        kind="ext4",
        mkfs_words=("-K", "-q"),
        mount_options=("nodev", "discard", "noatime"),
        pool="mine",
        discard=False,
        block_sectors=256,
        least_free=5,
        deferred_removal=False,
        deferred_deletion=False,
        xfs_retries="3",
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("dm.nonsense=1", "devmapper: Unknown option dm.nonsense"),
        ("foo.basesize=1", "devmapper: Unknown option foo.basesize"),
        ("dm.basesize", "unable to parse key/value option: dm.basesize"),
        ("dm.fs=btrfs", "devmapper: Unsupported filesystem btrfs"),
        ("dm.min_free_space=5", "devmapper: Option dm.min_free_space requires % suffix"),
        ("dm.min_free_space=100%", "devmapper: Invalid value 100% for option dm.min_free_space"),
        ("dm.min_free_space=x%", 'strconv.ParseUint: parsing "x": invalid syntax'),
        ("dm.blkdiscard=maybe", 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("dm.basesize=x", "invalid size: 'x'"),
        ("dm.directlvm_device=/dev/sdb", "devmapper: dm.directlvm_device=/dev/sdb: LVM is not set up here"),
    ],
)
def test_options_that_are_refused(option: str, said: str) -> None:
    with pytest.raises(BadConfig) as refused:
        parse_dm([option])
    assert str(refused.value) == said


def test_where_there_is_no_device_mapper(tmp_path: Path) -> None:
    if "device-mapper" in Path("/proc/misc").read_text():
        pytest.skip("this kernel has it")
    with pytest.raises(DriverNotSupported) as refused:
        Store.open(graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="devicemapper")
    assert str(refused.value) == f"failed to GetDriver graph devicemapper {tmp_path}/root: driver not supported"
    if os.geteuid() == 0:
        assert "the kernel here has no device mapper" in refused.value.hint
        assert "dm_thin_pool" in refused.value.hint
    assert not (tmp_path / "root/devicemapper").exists()
