"""Listing and showing layers, images and containers."""

from __future__ import annotations

from layerhold.cli import output
from layerhold.errors import SizeUnknown, StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    from layerhold.cli.flags import Given
    from layerhold.collection import Collection, Item
    from layerhold.containers import Container
    from layerhold.images import Image
    from layerhold.layers import Layer
    from layerhold.store import Store

    T = TypeVar("T", bound=Item[Any])


def layers(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """List the layers, with what stands on them."""
    if given.yes("json"):
        output.json_records(store.layers, empty=b"null")
        return 0
    if given.yes("quick") and not given.yes("tree"):
        output.lines([layer.id for layer in store.layers])
        return 0
    with store.reading() as held:  # one reading of each file, and one moment of all
        uses = _Uses(held)
        found = list(held.layers)
    output.lines(list(_tree(found, uses)) if given.yes("tree") else _listed(found, uses))
    return 0


def _listed(found: Iterable[Layer], uses: _Uses) -> list[str]:
    texts = []
    for layer in found:
        id = layer.id
        texts.append(id)
        if names := layer.names:
            texts += [f"\tname: {name}" for name in names]
        for kind, item in uses.of(id):
            texts.append(f"\t{kind}: {item.id}")
            texts += [f"\t\tname: {name}" for name in item.names]
    return texts


def layer(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Show layers."""
    return _show(store.layers, arguments, given, _show_layer)


def images(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """List the images."""
    if given.yes("json"):
        output.json_records(store.images, empty=b"null")
    else:
        _list_images(store.images, given)
    return 0


def by_digest(store: Store, arguments: Sequence[str], given: Given) -> int:
    """List the images with a digest."""
    from layerhold.digests import Digest

    found = store.images.by_digest(Digest.parse(arguments[0]))
    if given.yes("json"):
        output.json_records(found)
    else:
        _list_images(found, given)
    return 0


def image(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Show images."""
    return _show(store.images, arguments, given, _show_image)


def containers(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """List the containers."""
    if given.yes("json"):
        output.json_records(store.containers)
        return 0
    texts = []
    for container in store.containers:
        texts.append(container.id)
        texts += _titled("\tname", container.names)
        texts += _titled("\tdata", container.data)
    output.lines(texts)
    return 0


def container(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Show containers."""
    return _show(store.containers, arguments, given, lambda one: _show_container(store, one))


_BASE = "(base)"


class _Uses:
    """Who stands on which layer."""

    def __init__(self, store: Store) -> None:
        self._of: dict[str, list[tuple[str, Item[Any]]]] = {}
        for image in store.images:
            for top in (image.layer_id, *image.record.mapped_layers):
                self._of.setdefault(top, []).append(("image", image))
        for container in store.containers:
            self._of.setdefault(container.layer_id, []).append(("container", container))
        self.mounts = {record.id: record.path for record in store.mounts()}

    def of(self, id: str) -> list[tuple[str, Item[Any]]]:
        """Give the images and containers of layer `id`."""
        return self._of.get(id, [])


def _tree(found: Sequence[Layer], uses: _Uses) -> Iterator[str]:
    """Draw layers as a tree: below "(base)" those without a parent, below its ID those whose parent is gone."""
    known = {layer.id for layer in found}
    below: dict[str, list[Layer]] = {}
    for layer in found:
        below.setdefault(layer.parent_id or _BASE, []).append(layer)
    for root in below:
        if root not in known:
            yield root
            yield from _branches(root, below, uses)


def _branches(root: str, below: Mapping[str, Sequence[Layer]], uses: _Uses) -> Iterator[str]:
    # An explicit stack: chains of layers may be deeper than Python's own.
    stack = [("", layer, last) for layer, last in _last_first(below.get(root, ()))]
    while stack:
        indent, layer, last = stack.pop()
        yield f"{indent}{'└' if last else '├'}─{layer.id}"
        indent += "  " if last else "│ "
        for note in _notes(layer, uses):
            yield indent + note
        stack += [(indent, child, at_end) for child, at_end in _last_first(below.get(layer.id, ()))]


def _last_first(found: Sequence[Layer]) -> list[tuple[Layer, bool]]:
    return [(layer, layer is found[-1]) for layer in reversed(found)]


def _notes(layer: Layer, uses: _Uses) -> Iterator[str]:
    for name in layer.names:
        yield f"name: {name}"
    if layer.id in uses.mounts:
        yield f"mount: {uses.mounts[layer.id]}"
    for kind, item in uses.of(layer.id):
        yield f"{kind}: {item.id}"
        for name in item.names:
            yield f"{kind} name: {name}"


def _show(collection: Collection[Any, T], refs: Sequence[str], given: Given, show: Callable[[T], None]) -> int:
    """Show the items that there are of `refs`; the status tells whether there were all of them."""
    found = [item for ref in refs if (item := collection.get(ref)) is not None]
    if given.yes("json"):
        output.json_records(found)
    else:
        for item in found:
            show(item)
    return 0 if len(found) == len(refs) else 1


def _show_layer(layer: Layer) -> None:
    output.line(f"ID: {layer.id}")
    mappings = layer.record.mappings
    for title, ranges in (("UID", mappings.uids), ("GID", mappings.gids)) if mappings else ():
        for span in ranges:
            output.line(f"{title} mapping: (container={span.container}, host={span.host}, size={span.size})")
    if layer.parent_id:
        output.line(f"Parent: {layer.parent_id}")
    _lines("Name", layer.names)
    _print_read_only(layer)


def _list_images(found: Iterable[Image], given: Given) -> None:
    texts = []
    for image in found:
        texts.append(image.id)
        if not given.yes("quiet"):
            texts += _titled("\tname", image.names)
            texts += _titled("\tdigest", image.digests)
            texts += _titled("\tdata", image.data)
    output.lines(texts)


def _show_image(image: Image) -> None:
    output.line(f"ID: {image.id}")
    _lines("Name", image.names)
    _lines("Top Layer", (image.layer_id, *image.record.mapped_layers))
    _lines("Digest", image.digests)
    _lines("Data", image.data)
    _print_size(image)
    _print_read_only(image)


def _show_container(store: Store, container: Container) -> None:
    output.line(f"ID: {container.id}")
    _lines("Name", container.names)
    output.line(f"Image: {container.image_id}")
    image = store.images.get(container.image_id) if container.image_id else None
    if image is not None:
        _lines("Image name", image.names)
    _print_size(container)
    output.line(f"Layer: {container.layer_id}")
    _lines("Data", container.data)


def _print_size(item: Image | Container) -> None:
    try:
        output.line(f"Size: {output.size(item.size())}")
    except (StorageError, OSError, SizeUnknown) as error:
        output.line(f"Size unknown: {output.described(error)}")


def _print_read_only(item: Layer | Image) -> None:
    if item.read_only:
        output.line("Read Only: true")


def _lines(title: str, values: Iterable[str]) -> None:
    output.lines(_titled(title, values))


def _titled(title: str, values: Iterable[str]) -> list[str]:
    return [f"{title}: {value}" for value in values]
