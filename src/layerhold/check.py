"""Damage: looked for in a store.

First, in one moment, what records, files of big data and the driver say of each other: this module. Then, layer by
layer, what is in the layers: layer_checking.py. What is found is put into words in damage.py.
"""

from __future__ import annotations

import os

from layerhold.damage import DATA, MISSING, UNACCOUNTED, UNREFERENCED, Problem, Report, named
from layerhold.errors import InvalidBigDataName
from layerhold.layer_checking import LayerCheck
from layerhold.progress import metering
from layerhold.records.data import file_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.damage import Problems, Scope
    from layerhold.progress import Callback
    from layerhold.records.model import ContainerRecord, ImageRecord, LayerRecord
    from layerhold.store import Store


def check(store: Store, scope: Scope, progress: Callback | None = None) -> Report:
    """Look for damage. Raises DamagedFile (records that cannot be read), OSError."""
    return _Check(store, scope).run(progress)


class _Check:
    """One check on its way."""

    def __init__(self, store: Store, scope: Scope) -> None:
        self._store = store
        self._scope = scope
        self._layers: dict[str, LayerRecord] = {}
        self._images: dict[str, ImageRecord] = {}
        self._containers: dict[str, ContainerRecord] = {}
        self._found: Problems = {}  # by layer
        self._image_data: Problems = {}
        self._container_data: Problems = {}

    def run(self, progress: Callback | None) -> Report:
        """Check all."""
        with self._store._tables.reading("layers", "images", "containers") as views:
            self._layers = {layer.id: layer for layer in views.layers}
            self._images = {image.id: image for image in views.images}
            self._containers = {container.id: container for container in views.containers}
            half_made = {layer.id for layer in views.layers.incomplete()}
            self._compare_records(half_made)
        total = sum(layer.diff_size for layer in self._layers.values()) if self._scope.layer_digests else 0
        with metering(progress, "checking", total_bytes=total) as meter:
            for id, problems in LayerCheck(self._store, self._scope, self._layers, meter).run():
                self._found[id] = problems + self._found.get(id, [])
        return self._report()

    # --- what records say

    def _compare_records(self, half_made: set[str]) -> None:
        for id, layer in self._layers.items():
            if self._scope.layer_data:
                self._add(self._found, id, self._missing_data(layer))
            if layer.parent and layer.parent not in self._layers:
                self._add(self._found, id, [Problem(sentence=f"layer {layer.parent}: layer is missing", kind=MISSING)])
        if self._scope.image_data:
            for image in self._images.values():
                home = self._store.images.home(image)
                self._add(self._image_data, image.id, self._wrong_data(image, "image", home))
        if self._scope.container_data:
            for container in self._containers.values():
                home = self._store.containers.home(container)
                self._add(self._container_data, container.id, self._wrong_data(container, "container", home))
        self._find_unaccounted(half_made)
        self._find_unreferenced()

    def _missing_data(self, layer: LayerRecord) -> list[Problem]:
        home = os.path.join(self._store.layers.home(layer), layer.id)
        return [
            Problem(sentence=f'{named("layer", layer)}: data item "{key}": layer data item is missing', kind=DATA)
            for key in layer.big_data_names
            if _size_of(home, key) is None
        ]

    @staticmethod
    def _wrong_data(item: ImageRecord | ContainerRecord, noun: str, home: str) -> list[Problem]:
        found = []
        for key in item.big_data_names:
            size = _size_of(os.path.join(home, item.id), key)
            wrong = "is missing" if size is None else "has incorrect size"
            if size is None or size != item.big_data_sizes.get(key, size):
                sentence = f'{named(noun, item)}: data item "{key}": {noun} data item {wrong}'
                found.append(Problem(sentence=sentence, kind=DATA))
        return found

    def _find_unaccounted(self, half_made: set[str]) -> None:
        known = self._layers.keys() | half_made | {container.layer for container in self._containers.values()}
        for id in set(self._store.driver.ids()) - known:
            sentence = f"layer {id}: layer in lower level storage driver not accounted for"
            self._add(self._found, id, [Problem(sentence=sentence, kind=UNACCOUNTED)])

    def _find_unreferenced(self) -> None:
        tops = [top for image in self._images.values() for top in (image.layer, *image.mapped_layers)]
        referenced: set[str] = set()
        for top in (*tops, *(container.layer for container in self._containers.values())):
            id = top
            while id in self._layers and id not in referenced:
                referenced.add(id)
                id = self._layers[id].parent
        for id, layer in self._layers.items():
            if id not in referenced and not layer.read_only and _age(layer.created) > self._scope.unreferenced_for:
                sentence = f"layer {id}: layer not referenced by any images or containers"
                self._add(self._found, id, [Problem(sentence=sentence, kind=UNREFERENCED)])

    @staticmethod
    def _add(to: Problems, id: str, problems: list[Problem]) -> None:
        if problems:
            to.setdefault(id, []).extend(problems)

    # --- the report

    def _report(self) -> Report:
        report = Report()
        for id, problems in self._found.items():
            layer = self._layers.get(id)
            (report.read_only_layers if layer and layer.read_only else report.layers)[id] = problems
        for image in self._images.values():
            if problems := [*self._of_layers(image), *self._image_data.get(image.id, [])]:
                (report.read_only_images if image.read_only else report.images)[image.id] = problems
        for container in self._containers.values():
            above = {**report.images, **report.read_only_images}.get(container.image, [])
            if container.image and container.image not in self._images:
                above = [Problem(sentence=f"image {container.image}: image missing", kind=MISSING)]
            if problems := [*above, *self._container_data.get(container.id, [])]:
                report.containers[container.id] = problems
        for kind, records in (("layer", self._layers), ("image", self._images), ("container", self._containers)):
            report.made |= {(kind, record.id): record.created for record in records.values()}
        return report

    def _of_layers(self, image: ImageRecord) -> Iterator[Problem]:
        seen = {""}
        for top in (image.layer, *image.mapped_layers):
            id = top
            while id not in seen:
                seen.add(id)
                if id not in self._layers:
                    sentence = f"{named('image', image)}: layer {id}: image layer is missing"
                    yield Problem(sentence=sentence, kind=MISSING)
                    break
                yield from self._found.get(id, [])
                id = self._layers[id].parent


def _size_of(directory: str, key: str) -> int | None:
    """Give the size of a file of big data; None if there is none, or the key has none."""
    try:
        return os.stat(os.path.join(directory, file_name(key))).st_size
    except (FileNotFoundError, NotADirectoryError, InvalidBigDataName):
        return None


def _age(created: str) -> float:
    """Give the seconds since a record was made."""
    from datetime import UTC, datetime

    try:
        return (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a zone
        return 0.0
