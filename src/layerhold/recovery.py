"""After a crash: images and containers that were half-made, half-changed or half-removed.

Each left a note (records/intents.py). Whoever holds the exclusive locks of all kinds knows that the note's writer is
gone. An item whose record is there is kept, and the sizes and digests of the big data that was being written are taken
afresh; one without a record goes. Of the layers that were to come or go with it, those go that nobody uses.
Half-made layers are seen by their own flag, and taken away when the layers are next loaded (layer_files.py); those of a
batch are noted (layer_batches.py).
"""

from __future__ import annotations

import os

from layerhold import layer_batches, references
from layerhold.collection import with_data
from layerhold.errors import BigDataUnknown
from layerhold.records import data as big_data
from layerhold.records.intents import left_over, settle
from layerhold.tree.files import remove_tree, sweep_temporaries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerhold.containers import Containers
    from layerhold.layer_files import LayerFiles
    from layerhold.layout import Layout
    from layerhold.records.editor import Editor
    from layerhold.records.intents import Intent
    from layerhold.records.model import ContainerRecord, ImageRecord
    from layerhold.tables import Tables

    Items = Editor[ImageRecord] | Editor[ContainerRecord]


def clear_up(tables: Tables, files: LayerFiles, layout: Layout, containers: Containers) -> None:
    """Act on every note that a crash left."""
    with files.bins() as bins, tables.writing("layers", "images", "containers") as editors:
        layer_batches.clear_up(files, editors.layers, bins)

        def remove(layers: Sequence[str]) -> None:
            files.remove(editors.layers, references.unneeded(editors, layers), bins)

        for intent in left_over(containers.directory):
            _settle(editors.containers, intent, (containers.directory, containers.run_directory), remove)
        for home in layout.image_homes:
            for intent in left_over(home):
                _settle(editors.images, intent, (home, *layout.homes_of_users), remove)


def _settle(kind: Items, intent: Intent, homes: Sequence[str], remove: Callable[[Sequence[str]], None]) -> None:
    record = kind.own.get(intent.id)
    if record is not None:
        sweep_temporaries(os.path.join(homes[0], record.id))
        _measure(kind, record, homes[0], intent.keys)
        remove(intent.layers)  # a copy that was to come, and that the record does not speak of
    else:
        remove(intent.layers)
        for home in homes:
            remove_tree(os.path.join(home, intent.id))
    settle(homes[0], intent)


def _measure(kind: Items, record: ImageRecord | ContainerRecord, home: str, keys: Sequence[str]) -> None:
    """Take size and digest of the big data `keys` afresh; a key whose file never appeared is not noted."""
    found = {}
    for key in keys:
        try:
            found[key] = big_data.read(os.path.join(home, record.id), key)
        except BigDataUnknown:
            continue
    measured = with_data(record, found)
    if measured != record:
        kind.put(measured)  # type: ignore[arg-type]
        kind.save()
