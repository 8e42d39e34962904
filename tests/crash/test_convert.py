"""A conversion that is killed at any change leaves the old store as it was, and a whole new one or none."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from layerhold.convert import convert
from layerhold.store import Store
from tests import aufs_store, stores
from tests.crash.sweep import CALLS, Kill, strace, touching

pytestmark = [pytest.mark.root]
MOST = 30  # kills for each driver, spread over all moments


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_killed_at_changes(driver: str) -> None:
    with stores.scratch("convert") as folder:
        root, into = folder / "root", folder / "new"
        aufs_store.make(root, folder / "run")
        before = content(root)
        words = [
            sys.executable,
            "-c",
            f"from layerhold.convert import convert; convert({str(root)!r}, {driver!r}, into={str(into)!r})",
        ]
        kills = moments(words, folder)
        shutil.rmtree(into)
        for kill in kills[:: max(1, len(kills) // MOST)]:
            inject = f"inject={kill.call}:signal=SIGKILL:when={kill.number}"
            done = strace(["-o", "/dev/null", "-e", f"trace={kill.call}", "-e", inject], words)
            assert done.returncode == -signal.SIGKILL, f"{kill}: {done.returncode} {done.stderr}"
            assert content(root) == before, kill
            if into.exists():
                is_whole(into, folder / "run", driver)
                shutil.rmtree(into)
        convert(root, driver, into=into)
        is_whole(into, folder / "run", driver)
        assert sorted(os.listdir(folder)) == ["log", "new", "root", "run"]
        assert stores.mounts_below(folder) == []
        assert content(root) == before


def moments(words: list[str], folder: Path) -> list[Kill]:
    """All changes that a whole conversion makes."""
    log = folder / "log"
    traced = ",".join(f"?{call}" for call in CALLS)
    done = strace(["--seccomp-bpf", "-y", "-o", str(log), "-e", f"trace={traced}"], words)
    assert done.returncode == 0, done.stderr
    found = sorted(touching(log.read_text(errors="replace"), str(folder)))
    assert len(found) > MOST
    return found


def content(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """All names below `root`: what they are, when they changed, what is in them."""
    found = {}
    for path in root.rglob("*"):
        info = path.lstat()
        is_file = path.is_file() and not path.is_symlink()
        found[str(path)] = (info.st_mode, info.st_mtime_ns, path.read_bytes() if is_file else b"")
    return found


def is_whole(graphroot: Path, runroot: Path, driver: str) -> None:
    """See that a store has all that the old one had, and nothing is wrong with it."""
    with Store.open(graphroot=graphroot, runroot=runroot, driver=driver) as store:
        assert (len(store.layers), len(store.images), len(store.containers)) == (3, 1, 1)
        report = store.check()
        assert report.ok, vars(report)
        store.shutdown()
