"""What is counted as mounted."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import layerhold
from layerhold.errors import LayerUsedByContainer


def _opened(folder: Path) -> layerhold.Store:
    return layerhold.Store.open(graphroot=folder / "g", runroot=folder / "r", driver="vfs")


def test_uses_are_counted(tmp_path: Path) -> None:
    layer = _opened(tmp_path).layers.create()
    layer.mount()
    layer.mount()
    again = _opened(tmp_path).layers[layer.id]
    assert again.mount_count == 2
    assert again.unmount()
    assert not again.unmount()
    assert _opened(tmp_path).mounts() == []


def test_a_shutdown_that_fails_half_way_keeps_what_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _opened(tmp_path)
    first, second = (store.layers.create() for _ in range(2))
    first.mount()
    second.mount()

    def unmount(id: str) -> None:
        if id == second.id:
            raise OSError(errno.EBUSY, "busy")

    with monkeypatch.context() as patch:
        patch.setattr(store.driver, "unmount", unmount)
        with pytest.raises(OSError, match="busy"):
            store.shutdown(force=True)
    assert [mount.id for mount in _opened(tmp_path).mounts()] == [second.id]
    with pytest.raises(LayerUsedByContainer):
        _opened(tmp_path).shutdown(force=True)
    assert _opened(tmp_path).mounts() == []
