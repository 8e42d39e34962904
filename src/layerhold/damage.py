"""What a check says: which layers, images and containers are damaged, how, and in the Go library's words."""

from __future__ import annotations

from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layerhold.records.model import Record

    Problems = dict[str, list["Problem"]]

DAY = 86400.0

# The kinds of problems.
UNACCOUNTED, UNREFERENCED, MISSING = "unaccounted", "unreferenced", "missing"
CONTENT, MODIFIED, DATA, MOUNT = "content", "modified", "data", "mount"


class Problem(Value):
    """One thing that is wrong: `sentence` as the Go program prints it, `kind` one of the constants of this module."""

    sentence: str
    kind: str


class Report:
    """What is wrong with layers, images and containers: the ID of each, and its problems.

    An image has the problems of its layers, too, and a container those of its image. `made` says by kind and ID when
    what was checked was made, so that nothing is taken for it that came under the same ID later.
    """

    def __init__(self) -> None:
        self.layers: Problems = {}
        self.read_only_layers: Problems = {}
        self.images: Problems = {}
        self.read_only_images: Problems = {}
        self.containers: Problems = {}
        self.made: dict[tuple[str, str], str] = {}

    @property
    def ok(self) -> bool:
        """Tell whether nothing is wrong."""
        return not any((self.layers, self.read_only_layers, self.images, self.read_only_images, self.containers))


class Scope(Value):
    """What is to be checked; `unreferenced_for` is in seconds."""

    layer_digests: bool = True
    layer_contents: bool = True
    layer_data: bool = True
    image_data: bool = True
    container_data: bool = True
    mountable: bool = True
    unreferenced_for: float = DAY


def named(noun: str, record: Record) -> str:
    """Say which item a sentence is about, as Go does."""
    return f"{'read-only ' if record.read_only else ''}{noun} {record.id}"
