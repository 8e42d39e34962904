"""Stores of many layers, as pulling images leaves them, written without any of the programs that are measured.

Layers stand on one another in stacks of 20. Their records have what those of layers out of registries have (digests,
sizes, owners: about 450 bytes, where an empty layer's takes 200), and a tar-split file lies beside them. On the last
but one layer of each stack is an image with a manifest and a configuration; the last is free to be deleted.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from typing import TYPE_CHECKING

from benchmarks import contestants
from layerhold.records.data import file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STACK = 20
CREATED = "2026-01-01T00:00:00.123456789Z"


def layer_id(number: int) -> str:
    """Give the ID of a layer."""
    return hashlib.sha256(f"layer {number}".encode()).hexdigest()


def images_of(layers: int) -> int:
    """Say how many images a store of so many layers has."""
    return -(-layers // STACK)


def filled(layers: int) -> Callable[[Path], None]:
    """Give what makes a store on an empty file system."""

    def fill(fs: Path) -> None:
        contestants.ours().must(fs, "layers")
        graph = fs / "graph"
        for number in range(layers):
            _write_files(graph, number)
        _write_records(graph / "overlay-layers/layers.json", map(_layer, range(layers)))
        images = (_image(graph, number, layers) for number in range(images_of(layers)))
        _write_records(graph / "overlay-images/images.json", images)

    return fill


def _write_files(graph: Path, number: int) -> None:
    home = graph / "overlay" / layer_id(number)
    for name in ("diff", "work", "merged", *(() if number % STACK else ("empty",))):
        (home / name).mkdir(parents=True)
    (home / "link").write_text(_link(number))
    below = [f"l/{_link(lower)}" for lower in range(number - 1, number - number % STACK - 1, -1)]
    if below:
        (home / "lower").write_text(":".join(below))
    (graph / "overlay/l" / _link(number)).symlink_to(f"../{layer_id(number)}/diff")
    (graph / "overlay-layers" / f"{layer_id(number)}.tar-split.gz").write_bytes(gzip.compress(b""))


def _link(number: int) -> str:
    """Give the short name of a layer: 26 letters and digits, as the Go program makes them."""
    return base64.b32encode(hashlib.sha256(f"link {number}".encode()).digest()).decode()[:26]


def _layer(number: int) -> dict[str, object]:
    return {
        "id": layer_id(number),
        **({"parent": layer_id(number - 1)} if number % STACK else {}),
        "created": CREATED,
        "compressed-diff-digest": _digest(f"compressed {number}".encode()),
        "compressed-size": 1_000_000 + number,
        "diff-digest": _digest(f"plain {number}".encode()),
        "diff-size": 3_000_000 + number,
        "compression": 2,
        "uidset": [0],
        "gidset": [0, 42],
    }


def _image(graph: Path, number: int, layers: int) -> dict[str, object]:
    top = max(min((number + 1) * STACK, layers) - 2, number * STACK)
    config = json.dumps({"image": number, "history": ["x" * 100] * STACK}).encode()
    manifest = json.dumps({"config": _digest(config), "layers": [_digest(b"")] * STACK}).encode()
    data = {"manifest": manifest, f"manifest-{_digest(manifest)}": manifest, _digest(config): config}
    home = graph / "overlay-images" / _digest(config).partition(":")[2]
    home.mkdir()
    for key, value in data.items():
        (home / file_name(key)).write_bytes(value)
    return {
        "id": home.name,
        "digest": _digest(manifest),
        "names": [f"localhost/image-{number}:1"],
        "layer": layer_id(top),
        "metadata": "{}",
        "big-data-names": list(data),
        "big-data-sizes": {key: len(value) for key, value in sorted(data.items())},
        "big-data-digests": {key: _digest(value) for key, value in sorted(data.items())},
        "created": CREATED,
    }


def _digest(value: bytes) -> str:
    return f"sha256:{hashlib.sha256(value).hexdigest()}"


def _write_records(path: Path, records: Iterator[dict[str, object]]) -> None:
    path.write_text(json.dumps(list(records), separators=(",", ":")))
