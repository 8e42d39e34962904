"""Sharing blocks: what is looked at. What is shared on which file system is in tests/compat/test_dedup.py."""

from __future__ import annotations

import os
from pathlib import Path

import layerhold
from tests import stores


def test_what_lies_deeper_than_a_path_can_say_is_passed_over(tmp_path: Path) -> None:
    with layerhold.Store.open(graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="vfs") as store:
        layer = store.layers.create()
        store.images.create(layer=layer)
        with layer.mount() as top:
            top.chmod(0o755)
            deep = stores.nested(os.open(top, os.O_RDONLY | os.O_DIRECTORY), 50, "d" * 200)
            for name, content in (("one", b"same"), ("two", b"same")):
                with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=deep), "wb") as file:
                    file.write(content)
            os.close(deep)
        assert store.dedup(method="size").files == 0
