"""`create-layer`, `import-layer`, `create-image`, `create-container`."""

from __future__ import annotations

from layerhold.cli import output, progress
from layerhold.errors import MalformedMappings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from layerhold.archive.source import Readable
    from layerhold.cli.flags import Given
    from layerhold.collection import Item
    from layerhold.ids.mappings import IdMappings
    from layerhold.store import Store


def create_layer(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Make an empty layer."""
    return _create_layer(store, arguments, given, None)


def import_layer(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Make a layer from a tar stream."""
    output.expect_much()
    with output.reading(given.get("file")) as stream:
        return _create_layer(store, arguments, given, stream)


def create_image(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Make an image."""
    image = store.images.create(
        layer=(arguments[0] if arguments else "") or None,
        id=given.get("id") or None,
        names=given.all("name"),
        metadata=metadata(given) or "",
        digest=given.get("digest"),
    )
    kept = tuple(name for name in image.names if name in given.all("name"))
    if kept != image.names:  # some were taken over from an additional store; Go's program shows those given
        image.record = image.record.replace(names=kept, names_history=())
    return _made(image, given)


def create_container(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Make a container and its layer."""
    with progress.shown() as report:
        container = store.containers.create(
            image=arguments[0],
            id=given.get("id") or None,
            names=given.all("name"),
            metadata=metadata(given) or "",
            volatile=given.yes("volatile"),
            mappings=mappings(given),
            progress=report,
        )
    return _made(container, given)


def metadata(given: Given) -> str | None:
    """Give the text of `--metadata`, or of the file that `--metadata-file` names; None if neither is there."""
    if path := given.get("metadata-file"):
        with output.reading(path) as file:
            return file.read().decode(errors="surrogateescape")
    return given.get("metadata") if "metadata" in given else None


def _create_layer(store: Store, arguments: Sequence[str], given: Given, diff: Readable | None) -> int:
    with progress.shown() as report:
        layer = store.layers.create(
            arguments[0] if arguments else None,
            id=given.get("id") or None,
            names=given.all("name"),
            writable=not given.yes("readonly"),
            label=given.get("label"),
            mappings=mappings(given),
            diff=diff,
            progress=report,
        )
    return _made(layer, given)


def mappings(given: Given) -> IdMappings | None:
    """Give the maps that the flags ask for; None: none."""
    for kind in ("uid", "gid"):
        if given.yes(f"host{kind}map") and (given.get(f"{kind}map") or given.get(f"sub{kind}map")):
            raise MalformedMappings(f"host {kind} map specified along with {kind.upper()} mapping")
    if not any(key in given for key in ("uidmap", "gidmap", "subuidmap", "subgidmap", "hostuidmap", "hostgidmap")):
        return None
    from layerhold.ids.mappings import IdMappings
    from layerhold.ids.options import parse_mappings

    uids, gids = [given.get("uidmap")], [given.get("gidmap")]
    maps = parse_mappings(uids, gids, given.get("subuidmap"), given.get("subgidmap"), mirror=False)
    as_on_host = given.yes("hostuidmap") or given.yes("hostgidmap")
    return maps or (IdMappings() if as_on_host else None)


def _made(item: Item[Any], given: Given) -> int:
    if given.yes("json"):
        output.json_record(item)
        return 0
    output.line(item.id)
    for name in item.names:
        output.line(f"\t{name}")
    return 0
