"""Intents: what is being made, changed or taken away, noted before it is begun.

An image or a container is a record, a directory of data files, and layers. No single write can make all of them
appear or go, and neither `images.json` nor `containers.json` has a mark for "half-made" that the Go programs honour.
So whoever makes, changes or removes one first writes a small file beside the data directories

    <driver>-images/.pending-<id>        {"layers": ["<layer id>", ...], "keys": ["<big data key>", ...]}

and removes it when all is done. Both happen under the exclusive lock of that kind's record file, so a note found by
somebody who holds this lock was left by a crash, and says what to clear up: if the record is there, the item is whole
but for the sizes and digests of `keys`, which are taken afresh; if not, its directory goes, and those of `layers` that
nobody uses. Go's programs pass over names like this one (their `gc` looks at 64 hex digits only).
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.records import json_text
from layerhold.tree.files import FULL, TEMPORARY, read_bytes, sweep_temporaries, write_atomic
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = ".pending-"


class Intent(Value):
    """A note that item `id`, with `layers` and the big data `keys`, was being made, changed or removed."""

    id: str
    layers: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@contextmanager
def noted(directory: str, intent: Intent) -> Iterator[None]:
    """Keep the note in `directory` during the block; it stays if the block fails or the process is killed in it."""
    path = os.path.join(directory, PREFIX + intent.id)
    try:
        write_atomic(path, json_text.encode({"layers": intent.layers, "keys": intent.keys}).encode())
    except OSError as error:
        if error.errno not in FULL:
            raise
        # Something can be removed from a disk that is full, without a note; what is made there fails by itself.
        yield
        return
    yield
    os.unlink(path)


def anything_left(directory: str) -> bool:
    """Tell whether there are notes in `directory`, whole or not."""
    return any(name.startswith((PREFIX, TEMPORARY)) for name in os.listdir(directory))


def left_over(directory: str) -> list[Intent]:
    """List the notes in `directory`, whose lock is held exclusively; those that were never whole are removed."""
    sweep_temporaries(directory)
    ids = [name[len(PREFIX) :] for name in os.listdir(directory) if name.startswith(PREFIX)]
    return [_read(directory, id) for id in ids]


def settle(directory: str, intent: Intent) -> None:
    """Remove a note that has been acted on."""
    os.unlink(os.path.join(directory, PREFIX + intent.id))


def _read(directory: str, id: str) -> Intent:
    try:
        content = json_text.decode((read_bytes(os.path.join(directory, PREFIX + id)) or b"{}").decode())
    except ValueError:
        content = {}
    return Intent(id=id, layers=_texts(content, "layers"), keys=_texts(content, "keys"))


def _texts(content: object, key: str) -> tuple[str, ...]:
    values = content.get(key, ()) if isinstance(content, dict) else ()
    return tuple(value for value in values if isinstance(value, str))
