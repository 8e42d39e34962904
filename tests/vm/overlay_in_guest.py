"""What is done in the guest of test_old_kernels.py; it writes down what came of it in `result.json`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import layerhold
from layerhold.drivers.survey import survey
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.linux import mountinfo, namespaces
from layerhold.testing import everything, trees
from layerhold.testing.everything import Can, File

if TYPE_CHECKING:
    from layerhold.layers import Layer

DEEP = 80  # layers: their lowers' names take more than a page
SPAN = (IdRange(container=0, host=100000, size=65536),)


def main() -> None:
    """Do everything on an ext4 of its own: tmpfs has no `user.` attributes before Linux 6.6."""
    folder, disk = Path("/run/stores"), "/run/disk"
    folder.mkdir()
    with open(disk, "wb") as file:
        file.truncate(128 << 20)
    for words in (["mkfs.ext4", "-q", disk], ["mount", "-o", "loop", disk, str(folder)]):
        subprocess.run(words, check=True)
    result = {"kernel": os.uname().release, "survey": _survey(folder), **_all_kinds(folder), **_deep(folder)}
    result |= {**_mapped(folder), "in a namespace": _in_a_namespace(folder)}
    Path(sys.argv[1], "result.json").write_text(json.dumps(result))


def _open(folder: Path) -> layerhold.Store:
    return layerhold.Store.open(graphroot=folder / "root", runroot=folder / "run", driver="overlay")


def _survey(folder: Path) -> dict[str, Any]:
    return {answer.driver: [answer.usable, answer.reason] for answer in survey(str(folder))}


def _all_kinds(folder: Path) -> dict[str, Any]:
    can = Can.here()
    files = [everything.base(can), everything.top(can)]
    layer = None
    with _open(folder) as store:
        for entries in files:
            layer = store.layers.create(layer, diff=io.BytesIO(everything.as_tar(entries)))
        assert layer is not None
        with layer.mount(volatile=store.driver.features.volatile) as top:
            found = trees.rows(top)
            options = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(top) in line)
        del found[b""]
        return {"differences": trees.differences(everything.expected(*files), found), "volatile": "volatile" in options}


def _deep(folder: Path) -> dict[str, Any]:
    with _open(folder) as store:
        layer: Layer | None = None
        with store.writing() as batch:
            for number in range(DEEP):
                tar = everything.as_tar([File(b"file-%d" % number, content=b"%d" % number)])
                layer = batch.layers.create(layer, diff=io.BytesIO(tar))
        assert layer is not None
        with store.layers[layer.id].mount() as top:
            return {"deep": sorted(os.listdir(top), key=lambda name: int(name.split("-")[1]))}


def _mapped(folder: Path) -> dict[str, Any]:
    maps = IdMappings(uids=SPAN, gids=SPAN)
    with _open(folder) as store:
        layer = store.layers.create(diff=io.BytesIO(everything.as_tar([File(b"file", owner=(7, 8))])), writable=False)
        image = store.images.create(layer=layer)
        way = store.containers.plan(image=image, mappings=maps).way
        container = store.containers.create(image=image, mappings=maps)
        with store.mount(container.id) as top:
            info = os.stat(top / "file")
        return {"way": way, "owners": [info.st_uid, info.st_gid]}


def _in_a_namespace(folder: Path) -> list[Any]:
    """Say whether overlay can be used there, and what stands in its way."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(_inside(folder)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)  # type: ignore[no-any-return]


def _inside(folder: Path) -> list[Any]:
    def set_maps(process: int) -> None:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process}/{name}").write_text("0 0 65536\n")

    namespaces.become_root(set_maps)
    assert mountinfo.mount_points()
    found = _survey(folder)["overlay"]
    if found[0]:
        with _open(folder / "inside") as store:
            layer = store.layers.create(store.layers.create())
            with layer.mount() as top:
                (top / "file").write_text("mine")
            found.append([change.path.decode() for change in layer.changes()])
    return found  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
