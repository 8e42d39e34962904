"""`mount`, `unmount`, `mounted`, and who owns the directories above a mount point."""

from __future__ import annotations

import os

from layerhold.cli import output
from layerhold.errors import LayerUnknown, StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerhold.cli.flags import Given
    from layerhold.layers import Layer
    from layerhold.store import Store


def mount(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Mount layers, containers or images, and print where."""
    label = given.get("label")
    results = []
    for ref in arguments:
        try:
            made = store.images[ref].mount(label=label) if given.yes("read-only") else store.mount(ref, label=label)
            path, error = os.fspath(made), ""
        except (StorageError, OSError) as failure:
            path, error = "", output.described(failure)
        results.append({"id": ref, "mountpoint": path, "error": error})
    if given.yes("json"):
        output.json(results)
    else:
        for result in results:
            output.line(result["mountpoint"])
            if result["error"]:
                output.complain(f"{result['error']} while mounting {result['id']}")
    return 1 if any(result["error"] for result in results) else 0


def unmount(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Unmount layers, containers or images; of images nothing is printed."""
    force = given.yes("force")

    def one(ref: str) -> str:
        try:
            still = store.unmount(ref, force=force)
        except LayerUnknown:
            if (image := store.images.get(ref)) is None:
                raise
            still = True
            image.unmount(force=force)
        return "" if still else f"{ref} mountpoint unmounted"

    return _each(arguments, given, one, "while unmounting {}")


def mounted(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Say which layers or containers are mounted."""
    return _each(
        arguments, given, lambda ref: f"{ref} mounted" if store.mounted(ref) else "", "checking if {} is mounted"
    )


def layer_parent_owners(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Say who owns directories above layers' mount points, and is in no ID map."""
    found = [store.layers.get(ref) for ref in arguments]
    return _owners([(layer.id, layer) if layer else None for layer in found], given, "LayerParentOwner", always=False)


def container_parent_owners(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Say who owns directories above containers' mount points, and is in no ID map."""
    found = [store.containers.get(ref) for ref in arguments]
    return _owners([(one.id, one.layer) if one else None for one in found], given, "ContainerParentOwner", always=True)


def _owners(found: Sequence[tuple[str, Layer] | None], given: Given, about: str, *, always: bool) -> int:
    """Print the owners for each that there is, under its ID; `always`: also a list that is empty."""
    well = all(found)
    for id, layer in filter(None, found):
        try:
            owners = layer.parent_owners()
        except (StorageError, OSError) as failure:
            output.complain(f"{about}: {output.described(failure)}")
            well = False
            continue
        if given.yes("json"):
            output.json({"ID": id, "UIDs": owners[0] or None, "GIDs": owners[1] or None})
            continue
        output.line(f"ID: {id}")
        for title, ids in zip(("UIDs", "GIDs"), owners, strict=True):
            if ids or always:
                output.line(f"{title}: [{' '.join(map(str, ids))}]")
    return 0 if well else 1


def _each(refs: Sequence[str], given: Given, one: Callable[[str], str], doing: str) -> int:
    results = []
    for ref in refs:
        try:
            said, error = one(ref), ""
        except (StorageError, OSError) as failure:
            said, error = "", output.described(failure)
        if said:
            output.line(said)
        results.append({"id": ref, "error": error})
    if given.yes("json"):
        output.json(results)
    else:
        for result in results:
            if result["error"]:
                output.complain(f"{result['error']} {doing.format(result['id'])}")
    return 1 if any(result["error"] for result in results) else 0
