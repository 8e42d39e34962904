"""Repair: removing what a check found damaged, so that it can be pulled or built again.

In the order of the Go library: containers, if that is wanted; images with the layers that only they need; other layers,
the highest first; then what the driver has and no record knows. What must stay, because something that is not going
needs it, is listed with the reason.

More careful than Go: nothing goes that was made anew since the check; a layer goes for damage to its files, not because
a mount of it was refused; and what the driver has stays while a record that is not going names it.
"""

from __future__ import annotations

from layerhold import references
from layerhold.damage import MOUNT, UNACCOUNTED
from layerhold.errors import NotFound, StorageError
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.damage import Problem, Report
    from layerhold.progress import Meter
    from layerhold.records.model import ImageRecord, LayerRecord, Record
    from layerhold.store import Store
    from layerhold.tables import Views

CONTAINER, IMAGE, LAYER, FILES = "container", "image", "layer", "files"


class Removal(Value):
    """Something that goes: a "container", an "image", a "layer", or the "files" of a layer that no record knows.

    `error` says why it does not go, or could not be removed, in the words of the Go program.
    """

    kind: str
    id: str
    error: str = ""


def plan(store: Store, report: Report, *, containers: bool) -> list[Removal]:
    """Say what repairing would remove, in its order."""
    with store._tables.reading("layers", "images", "containers") as views:
        return list(_Plan(views, report).removals(containers))


def carry_out(store: Store, planned: list[Removal], meter: Meter | None = None) -> list[Removal]:
    """Remove what was planned; give it back with the reason where something could not be removed."""
    return [removal if removal.error else _removed(store, removal, meter) for removal in planned]


def _removed(store: Store, removal: Removal, meter: Meter | None) -> Removal:
    try:
        if removal.kind == CONTAINER:
            store.containers[removal.id]._delete(meter)
        elif removal.kind == IMAGE:
            store.images[removal.id]._delete(meter)
        elif removal.kind == LAYER:
            store.layers[removal.id]._delete(meter)
        else:
            _remove_files(store, removal.id, meter)
    except NotFound:
        return removal  # it is gone: with its image, or by somebody else
    except (StorageError, OSError) as error:
        return removal.replace(error=_refused(LAYER if removal.kind == FILES else removal.kind, removal.id, str(error)))
    return removal


def _remove_files(store: Store, id: str, meter: Meter | None) -> None:
    files = store._files
    with files.bins(meter) as bins, store._tables.writing("layers", "images", "containers") as editors:
        editors.layers.save()  # as in garbage.py
        if id not in references.named_layers(editors):
            files.driver.unmount(id)
            files.driver.remove(id, bins.driver)


class _Plan:
    """What would go, found out from the records alone."""

    def __init__(self, views: Views, report: Report) -> None:
        self._views = views
        self._report = report
        self._going: set[tuple[str, str]] = set()  # kinds and IDs

    def removals(self, containers: bool) -> Iterator[Removal]:
        """Give all in order."""
        for id in self._report.containers if containers else ():
            container = self._views.containers.get(id)
            if container is not None and self._is_meant(CONTAINER, container):
                self._going |= {(CONTAINER, id), (LAYER, container.layer)}
                yield Removal(kind=CONTAINER, id=id)
        for id, problems in self._report.images.items():
            image = self._views.images.own.get(id)
            if image is not None and self._is_meant(IMAGE, image):
                yield from self._image(image, problems)
        layers = [layer for id in self._report.layers if (layer := self._views.layers.own.get(id)) is not None]
        for layer in sorted(layers, key=self._depth, reverse=True):
            if (LAYER, layer.id) not in self._going and self._is_meant(LAYER, layer):
                yield self._layer(layer.id)
        for id, problems in self._report.layers.items():
            if any(problem.kind == UNACCOUNTED for problem in problems) and id not in self._views.layers:
                yield Removal(kind=FILES, id=id, error=_refused(LAYER, id, self._why_needed(id)))

    def _image(self, image: ImageRecord, problems: list[Problem]) -> Iterator[Removal]:
        users = references.containers_on(self._views.containers, image.id)
        staying = [user.id for user in users if (CONTAINER, user.id) not in self._going]
        why = f"image used by {staying[0]}: image is in use by a container" if staying else _no_damage(problems)
        yield Removal(kind=IMAGE, id=image.id, error=_refused(IMAGE, image.id, why))
        if why:
            return
        self._going.add((IMAGE, image.id))
        for top in (*image.mapped_layers, image.layer):
            layer = self._views.layers.own.get(top)
            while layer is not None and (LAYER, layer.id) not in self._going and not self._why_needed(layer.id):
                self._going.add((LAYER, layer.id))
                yield Removal(kind=LAYER, id=layer.id)
                layer = self._views.layers.own.get(layer.parent)

    def _layer(self, id: str) -> Removal:
        why = self._why_needed(id) or _no_damage(self._report.layers[id])
        if not why:
            self._going.add((LAYER, id))
        return Removal(kind=LAYER, id=id, error=_refused(LAYER, id, why))

    def _why_needed(self, id: str) -> str:
        """Say who needs layer `id` that is not going; "" if nobody does."""
        for layer in references.children(self._views.layers, id):
            if (LAYER, layer.id) not in self._going:
                return f"used by layer {layer.id}: layer has children"
        for image in references.images_over(self._views.images, id):
            if (IMAGE, image.id) not in self._going:
                return f"layer {id} used by image {image.id}: layer is in use by an image"
        owner = references.container_of(self._views.containers, id)
        if owner is not None and (CONTAINER, owner.id) not in self._going:
            return f"layer {id} used by container {owner.id}: layer is in use by a container"
        return ""

    def _is_meant(self, kind: str, record: Record) -> bool:
        """Tell whether what has this ID now is what was checked."""
        return self._report.made.get((kind, record.id)) == record.created

    def _depth(self, record: LayerRecord) -> int:
        seen = {record.id}
        layer: LayerRecord | None = record
        while layer is not None and layer.parent not in seen:
            seen.add(layer.parent)
            layer = self._views.layers.get(layer.parent)
        return len(seen)


def _no_damage(problems: list[Problem]) -> str:
    """Say so if all that is wrong is that a mount was refused; "" otherwise."""
    if any(problem.kind != MOUNT for problem in problems):
        return ""
    return f"{problems[0].sentence}: which may be no fault of its files"


def _refused(kind: str, id: str, why: str) -> str:
    return f"deleting {kind} {id}: {why}" if why else ""
