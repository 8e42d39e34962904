"""What is the same for layers, images and containers: existence, names, metadata, removal."""

from __future__ import annotations

from layerhold.cli import output, progress
from layerhold.cli.create import metadata as given_metadata
from layerhold.errors import LayerUnknown, NotAContainer, NotALayer, NotAnImage, NotFound, StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from layerhold.cli.flags import Given
    from layerhold.collection import Collection, Item
    from layerhold.store import Store


def exists(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Tell whether things exist; the exit status says whether all do, and are of the kind that is asked for."""
    wanted = [kind for kind in ("layer", "image", "container") if given.yes(kind)]
    there: dict[str, bool] = {}
    all_well = True
    for ref in arguments:
        kinds = {type(item).__name__.lower() for item in store.find_all(ref)}
        there[ref] = bool(kinds)
        all_well = all_well and bool(kinds) and kinds.issuperset(wanted)
    if given.yes("json"):
        output.json(dict(sorted(there.items())))
    elif not given.yes("quiet"):
        for ref, found in there.items():
            output.line(f"{ref}: {'true' if found else 'false'}")
    return 0 if all_well else 1


def get_names(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Print the names of something."""
    names = _one(store, arguments[0]).names
    if given.yes("json"):
        output.json(list(names))
    else:
        for name in names:
            output.line(name)
    return 0


def set_names(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Give something just these names."""
    return _rename(store, arguments[0], given, lambda item, names: item.set_names(names))


def add_names(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Give something more names."""
    return _rename(store, arguments[0], given, lambda item, names: item.add_names(names))


def remove_names(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Take names away from something."""
    return _rename(store, arguments[0], given, lambda item, names: item.remove_names(names))


def metadata(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Print the text attached to things."""
    found: dict[str, str] = {}
    for ref in arguments:
        items = store.find_all(ref)
        if items:
            found[ref] = items[0].metadata
    if given.yes("json"):
        output.json({ref: text.removesuffix("\n") for ref, text in sorted(found.items())})
    else:
        for ref in arguments:
            text = found.get(ref, "").removesuffix("\n")
            output.line(text if given.yes("quiet") else f"{ref}: {text}")
    return 0 if len(found) == len(set(arguments)) else 1


def set_metadata(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Attach a text."""
    text = given_metadata(given)
    if not text and not given.get("metadata-file"):
        output.complain("no new metadata provided")
        return 1
    items = [item for item in store.find_all(arguments[0]) if not item.read_only]
    if not items:
        raise NotFound(arguments[0])
    items[0].set_metadata(text or "")
    return 0


def delete(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Remove what nobody needs. Go's program asks nobody here, and leaves images without layers."""

    def remove(ref: str) -> None:
        with progress.shown() as report:
            store.delete(ref, progress=report)

    return _each(arguments, given, remove)


def delete_layer(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Remove layers."""
    return _each(arguments, given, _removal(store.layers, NotALayer))


def delete_container(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Remove containers and their layers."""
    return _each(arguments, given, _removal(store.containers, NotAContainer))


def delete_image(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Remove images, and layers that only they need; say which layers, on standard error."""
    results: dict[str, dict[str, object]] = {}
    for ref in arguments:
        image = store.images.own(ref)
        try:
            if image is None:
                raise NotAnImage(ref)
            with progress.shown() as report:
                gone = image.delete(commit=not given.yes("test"), progress=report)
            results[ref] = {"deleted-layers": gone} if gone else {}
        except (StorageError, OSError) as error:
            results[ref] = {"error": output.described(error)}
    if given.yes("json"):
        output.json(dict(sorted(results.items())))
    else:
        for ref, result in results.items():
            for text in (*_list(result.get("deleted-layers")), *_list(result.get("error"))):
                output.complain(f"{ref}: {text}")
    return 1 if any("error" in result for result in results.values()) else 0


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value] if value else []


def _one(store: Store, ref: str) -> Item[Any]:
    items = store.find_all(ref)
    if not items:
        raise LayerUnknown(ref)
    return items[0]


def _rename(store: Store, ref: str, given: Given, change: Callable[[Item[Any], Sequence[str]], None]) -> int:
    item = _one(store, ref)
    if item.read_only and item.id in store.layers:
        raise LayerUnknown(ref)
    change(item, given.all("name"))
    if given.yes("json"):
        output.json(list(item.names) or None)
    return 0


def _removal(collection: Collection[Any, Any], unknown: type[NotFound]) -> Callable[[str], None]:
    """Give the removal of one item of a kind, which raises `unknown` for what is not of it."""

    def remove(ref: str) -> None:
        item = collection.own(ref)
        if item is None:
            raise unknown(ref)
        with progress.shown() as report:
            item.delete(progress=report)

    return remove


def _each(refs: Sequence[str], given: Given, remove: Callable[[str], None]) -> int:
    """Remove each, and report each."""
    errors: dict[str, str] = {}
    for ref in refs:
        try:
            remove(ref)
            errors[ref] = ""
        except (StorageError, OSError) as error:
            errors[ref] = output.described(error)
    if given.yes("json"):
        output.json(dict(sorted(errors.items())))
    else:
        for ref, text in errors.items():
            if text:
                output.complain(f"{ref}: {text}")
    return 1 if any(errors.values()) else 0
