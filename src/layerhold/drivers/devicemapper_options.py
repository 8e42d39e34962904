"""The options of the devicemapper driver: `dm.<key>=<value>`, with Go's keys, units and words for what is wrong.

Those that set LVM up are read and refused: the driver uses a pool that LVM made, and makes none with it.
"""

from __future__ import annotations

from layerhold.drivers.options import DRIVERS, is_true
from layerhold.drivers.sizes import parse_size
from layerhold.errors import BadConfig
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_LVM = frozenset({
    "directlvm_device", "directlvm_device_force", "thinp_autoextend_percent", "thinp_autoextend_threshold",
    "thinp_metapercent", "thinp_percent", "metadata_size",
})  # fmt: skip
_WITHOUT_EFFECT = frozenset({"libdm_log_level", "override_udev_sync_check"})


class DmOptions(Value):
    """What was set. Sizes are 0, texts "" and `discard` None if nothing says."""

    base_size: int = 0
    data_size: int = 0
    metadata_size: int = 0
    kind: str = ""
    mkfs_words: tuple[str, ...] = ()
    mount_options: tuple[str, ...] = ()
    data_device: str = ""
    metadata_device: str = ""
    pool: str = ""
    discard: bool | None = None
    block_sectors: int = 128
    deferred_removal: bool = True
    deferred_deletion: bool = True
    least_free: int = 10  # percent
    xfs_retries: str = ""


def parse_dm(options: Sequence[str]) -> DmOptions:
    """Read the options; those of other drivers are passed over. Raises BadConfig."""
    found: dict[str, Any] = {}
    for option in options:
        key, given, value = option.partition("=")
        if not given:
            raise BadConfig(f"unable to parse key/value option: {option}")
        prefix, dot, rest = key.lower().partition(".")
        if key.lower() == "test" or (dot and prefix in DRIVERS):
            continue
        if dot and prefix not in ("dm", "devicemapper", ""):
            raise BadConfig(f"devmapper: Unknown option {key.lower()}")
        _take(found, rest if dot else prefix, value, option)
    return DmOptions(**found)


def _take(found: dict[str, Any], key: str, value: str, option: str) -> None:
    if key in _FIELDS:
        field, read = _FIELDS[key]
        found[field] = read(value)
    elif key == "mkfsarg":
        found["mkfs_words"] = (*found.get("mkfs_words", ()), value)
    elif key == "mountopt":
        found["mount_options"] = (*found.get("mount_options", ()), *filter(None, value.split(",")))
    elif key in _LVM:
        raise BadConfig(
            f"devmapper: {option}: LVM is not set up here",
            hint="make the thin pool with lvcreate, and name it: dm.thinpooldev=/dev/mapper/<pool>",
        )
    elif key not in _WITHOUT_EFFECT:
        raise BadConfig(f"devmapper: Unknown option {option.partition('=')[0].lower()}")


def _file_system(value: str) -> str:
    if value not in ("ext4", "xfs"):
        raise BadConfig(f"devmapper: Unsupported filesystem {value}")
    return value


def _percent(value: str) -> int:
    if not value.endswith("%"):
        raise BadConfig("devmapper: Option dm.min_free_space requires % suffix")
    number = _number(value[:-1])
    if number >= 100:
        raise BadConfig(f"devmapper: Invalid value {value} for option dm.min_free_space")
    return number


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise BadConfig(f'strconv.ParseUint: parsing "{value}": invalid syntax')
    return int(value)


_FIELDS: dict[str, tuple[str, Callable[[str], object]]] = {
    "basesize": ("base_size", parse_size),
    "blkdiscard": ("discard", is_true),
    "blocksize": ("block_sectors", lambda value: parse_size(value) >> 9),
    "datadev": ("data_device", str),
    "fs": ("kind", _file_system),
    "loopdatasize": ("data_size", parse_size),
    "loopmetadatasize": ("metadata_size", parse_size),
    "metadatadev": ("metadata_device", str),
    "min_free_space": ("least_free", _percent),
    "thinpooldev": ("pool", lambda value: value.removeprefix("/dev/mapper/")),
    "use_deferred_deletion": ("deferred_deletion", is_true),
    "use_deferred_removal": ("deferred_removal", is_true),
    "xfs_nospace_max_retries": ("xfs_retries", lambda value: str(_number(value))),
}
