"""User namespaces that are chosen for a container: IDs that no other container of the store has.

How many are needed is found out from the image (its /etc/passwd and /etc/group, and the owners of its files); which
are free, from the maps of all containers and the ranges that /etc/subuid and /etc/subgid give to one name. Who chooses
holds `userns.lock` until the container's record, which takes the IDs, has been saved. What is computed is in
ids/userns.py.
"""

from __future__ import annotations

import os

from layerhold import lock
from layerhold.blocks import contextmanager
from layerhold.ids.mappings import IdMappings
from layerhold.lock import LockFile
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.config import Config
    from layerhold.containers import Containers
    from layerhold.records.model import LayerRecord
    from layerhold.tables import Views

_DEFAULT_NAME = "containers"  # whose ranges they are, if storage.conf names nobody as root-auto-userns-user
_LARGEST_FILE = 1 << 20


class AutoUserns(Value):
    """IDs are to be chosen: `size` of them, or (0) as many as the image needs, at least `at_least`.

    `additional` are maps that the container gets besides. `passwd_file` and `group_file` are paths on the host that are
    looked into instead of the image's.
    """

    size: int = 0
    at_least: int = 1
    additional: IdMappings | None = None
    passwd_file: str = ""
    group_file: str = ""


@contextmanager
def chosen(config: Config, wanted: AutoUserns, containers: Containers, image: str | None) -> Iterator[IdMappings]:
    """Give the maps for a new container of `image`, for the block in which it is made and saved.

    Raises NoAvailableIDs, NoSubIds, InvalidMappings, ImageUnknown, StorageError, OSError.
    """
    root = config.graphroot
    with LockFile(os.path.join(root, "userns.lock"), rank=lock.USERNS, store=root).exclusive():
        yield _choose(config, wanted, containers, image)


def _choose(config: Config, wanted: AutoUserns, containers: Containers, image: str | None) -> IdMappings:
    from layerhold.ids import userns
    from layerhold.ids.subids import subgids_of, subuids_of

    name = config.auto_userns_user or _DEFAULT_NAME
    available = IdMappings(uids=subuids_of(name), gids=subgids_of(name))
    with containers._tables.reading("layers", "images", "containers") as views:
        used = [maps for other in views.containers if (maps := other.mappings) is not None]
        size = userns.size_to_choose(
            wanted.size or _needed(wanted, containers, views, image),
            requested=wanted.size,
            at_least=wanted.at_least,
            smallest=config.auto_userns_min_size,
            largest=config.auto_userns_max_size,
        )
    return userns.choose(available, used, size, additional=wanted.additional)


def _needed(wanted: AutoUserns, containers: Containers, views: Views, image: str | None) -> int:
    """Count the IDs that an image uses, or the files that are to be looked into instead."""
    from layerhold.container_bases import find
    from layerhold.ids.userns import size_needed

    top = find(views, image, IdMappings(), containers.layers.driver).layer if image else None
    owners: set[int] = set()
    for layer in _chain(views, top):
        owners.update(layer.uids, layer.gids)
    passwd, group = (
        _host_file(path) if path else _file_in(containers, top, name)
        for path, name in ((wanted.passwd_file, b"etc/passwd"), (wanted.group_file, b"etc/group"))
    )
    return size_needed(passwd, group, owners)


def _chain(views: Views, top: LayerRecord | None) -> Iterator[LayerRecord]:
    layer = top
    while layer is not None:
        yield layer
        layer = views.layers.get(layer.parent) if layer.parent else None


def _host_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_LARGEST_FILE)


def _file_in(containers: Containers, top: LayerRecord | None, name: bytes) -> bytes:
    """Give what a file of the image says, and nothing if it is not there; links lead nowhere out of the image."""
    if top is None:
        return b""
    from layerhold.archive.united import opened
    from layerhold.comparing import tree_of

    with containers.layers.driver.contents(top.id, against=None) as contents, opened(tree_of(contents)) as root:
        try:
            fd = root.open_file(name)
        except OSError:
            return b""
        with os.fdopen(fd, "rb") as file:
            return file.read(_LARGEST_FILE)
