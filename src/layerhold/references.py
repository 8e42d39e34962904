"""Who uses what.

A layer stays while another layer stands on it, an image has it as its top (or as a mapped copy of its top), or a
container owns it. Everything here looks at records only: the caller holds the locks and deletes. What additional
stores have does not count: they have their own layers, of the same ID or not.
"""

from __future__ import annotations

from layerhold.errors import ImageUsedByContainer, LayerHasChildren, LayerUsedByContainer, LayerUsedByImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from layerhold.records.model import ContainerRecord, ImageRecord, LayerRecord
    from layerhold.records.view import View
    from layerhold.tables import Views


def children(layers: View[LayerRecord], id: str) -> list[LayerRecord]:
    """The layers that stand directly on layer `id`."""
    return layers.own.where("parent", id)


def images_over(images: View[ImageRecord], id: str) -> list[ImageRecord]:
    """The images that have layer `id` as their top, or as a mapped copy of it."""
    return images.own.where("layer", id, or_among="mapped-layers")


def container_of(containers: View[ContainerRecord], id: str) -> ContainerRecord | None:
    """The container whose own layer `id` is."""
    return next(iter(containers.where("layer", id)), None)


def containers_on(containers: View[ContainerRecord], image: str) -> list[ContainerRecord]:
    """The containers made from image `image`."""
    return containers.where("image", image)


def named_layers(views: Views) -> set[str]:
    """The IDs of all own layers that there are records of, half-made ones too, and of those that own records name."""
    named: set[str] = set()
    for layer in (*views.layers.own, *views.layers.incomplete()):
        named.update((layer.id, layer.parent))
    for image in views.images.own:
        named.update((image.layer, *image.mapped_layers))
    named.update(container.layer for container in views.containers)
    return named - {""}


def refuse_if_layer_needed(views: Views, id: str) -> None:
    """Raise the InUse error that says who still needs layer `id`."""
    if above := children(views.layers, id):
        raise LayerHasChildren(f"used by layer {above[0].id}", by=tuple(layer.id for layer in above))
    if images := images_over(views.images, id):
        raise LayerUsedByImage(f"layer {id} used by image {images[0].id}", by=tuple(image.id for image in images))
    if owner := container_of(views.containers, id):
        raise LayerUsedByContainer(f"layer {id} used by container {owner.id}", by=(owner.id,))


def refuse_if_image_needed(containers: View[ContainerRecord], id: str) -> None:
    """Raise the InUse error that says which container was made from image `id`."""
    if users := containers_on(containers, id):
        raise ImageUsedByContainer(f"image used by {users[0].id}", by=tuple(user.id for user in users))


def only_for_image(views: Views, image: ImageRecord) -> list[str]:
    """The layers that nobody but `image` needs, each before its parent."""
    removable: list[str] = []
    for top in (*image.mapped_layers, image.layer):
        removable.extend(_unneeded_from(views, top, removable, image.id))
    return removable


def unneeded(views: Views, ids: Collection[str]) -> list[str]:
    """Those of the layers `ids` that are there and that nobody needs (but others of `ids`), each before its parent."""
    removable: list[str] = []
    remaining = [id for id in ids if id in views.layers.own]
    while ready := [id for id in remaining if not _needed(views, id, removable, "")]:
        removable.extend(ready)
        remaining = [id for id in remaining if id not in ready]
    return removable


def _unneeded_from(views: Views, id: str, gone: Collection[str], image: str) -> Iterator[str]:
    """Walk down from layer `id` for as long as only `image` and what is in `gone` need what is met."""
    above: list[str] = []
    layer = views.layers.own.get(id) if id else None
    while layer and layer.id not in gone and not _needed(views, layer.id, [*gone, *above], image):
        yield layer.id
        above.append(layer.id)
        layer = views.layers.own.get(layer.parent) if layer.parent else None


def _needed(views: Views, id: str, gone: Collection[str], image: str) -> bool:
    """Tell whether something needs layer `id`, apart from the layers in `gone` and from `image`."""
    return (
        any(layer.id not in gone for layer in children(views.layers, id))
        or any(user.id != image for user in images_over(views.images, id))
        or container_of(views.containers, id) is not None
    )
