"""What is in a record of each kind.

Records are frozen values: to change one is to make another (`replace`). Texts that are absent in the file are "",
numbers 0, lists and maps empty. `unknown` has the keys that Layerhold does not know, with their values as the file
had them, and they are written back. Times are kept as the text that the file has: RFC 3339, up to nine digits of a
second. Which key of the file a field stands for, and in which order the keys are written, is in codec.py.
"""

from __future__ import annotations

import time

from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from layerhold.ids.mappings import IdMappings

EMPTY: Mapping[str, Any] = {}
NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


class Record(Value):
    """What the records of layers, images and containers have in common.

    `origin` is the file that the record is in, "" for the table's first; `read_only` says that it is another store's,
    which is only read. Neither is written.
    """

    id: str
    names: tuple[str, ...] = ()
    metadata: str = ""
    created: str = NEVER
    flags: Mapping[str, Any] = EMPTY
    big_data_names: tuple[str, ...] = ()
    unknown: Mapping[str, Any] = EMPTY
    origin: str = ""
    read_only: bool = False

    def __hash__(self) -> int:
        return hash(self.id)


class LayerRecord(Record):
    """One layer. `mappings` is None where the record has no maps of its own."""

    parent: str = ""
    mount_label: str = ""
    compressed_diff_digest: str = ""
    compressed_size: int = 0
    diff_digest: str = ""
    toc_digest: str = ""
    diff_size: int = 0
    compression: int = 0
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    mappings: IdMappings | None = None

    @property
    def incomplete(self) -> bool:
        """Tell whether a crash left the layer half-made or half-removed."""
        return self.flags.get("incomplete") is True


class ImageRecord(Record):
    """One image. Big data sizes are in bytes."""

    digest: str = ""
    names_history: tuple[str, ...] = ()
    layer: str = ""
    mapped_layers: tuple[str, ...] = ()
    big_data_sizes: Mapping[str, int] = EMPTY
    big_data_digests: Mapping[str, str] = EMPTY


class ContainerRecord(Record):
    """One container."""

    image: str = ""
    layer: str = ""
    big_data_sizes: Mapping[str, int] = EMPTY
    big_data_digests: Mapping[str, str] = EMPTY
    mappings: IdMappings | None = None


class MountRecord(Value):
    """How often the mount of layer `id` at `path` is in use."""

    id: str
    path: str = ""
    count: int = 0
    unknown: Mapping[str, Any] = EMPTY


def now() -> str:
    """Give the time as Go writes it: UTC, up to nine digits of a second, without zeros at the end."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"
