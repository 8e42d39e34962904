"""User namespaces to hold: their maps, and what is left of their making when the process is killed meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from layerhold.linux import locks, namespaces
from tests import stores

pytestmark = pytest.mark.root


def test_a_namespace_has_the_maps() -> None:
    namespace = namespaces.user_namespace("0 1000 5\n", "0 2000 7\n")
    try:
        assert os.readlink(f"/proc/self/fd/{namespace}") != os.readlink("/proc/self/ns/user")
    finally:
        os.close(namespace)


def test_a_killed_process_leaves_no_child_that_has_its_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that makes the namespace has a copy of every descriptor: the lock of a store would never come free."""
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    child = os.fork()
    if child == 0:
        locks.lock(os.open(tmp_path / "lock", os.O_RDWR), exclusive=True, wait=True)
        monkeypatch.setattr(os, "open", lambda *_args: os.kill(os.getpid(), signal.SIGKILL))
        namespaces.user_namespace("0 1000 5\n", "0 2000 7\n")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    end = time.monotonic() + 5
    while not (free := locks.lock(fd, exclusive=True, wait=False)) and time.monotonic() < end:
        time.sleep(0.01)
    os.close(fd)
    assert free


@pytest.mark.parametrize("what", ["fork", "maps", "mounts", "enter"])
def test_what_fails_leaves_nothing_open_and_the_process_where_it_was(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before, here = stores.descriptors(), os.readlink("/proc/self/ns/user")
    open_ = namespaces._open

    def refuse(*_args: object) -> Any:
        raise OSError(errno.EAGAIN, what)

    if what == "fork":
        monkeypatch.setattr(os, "fork", refuse)
    elif what == "mounts":
        monkeypatch.setattr(namespaces, "_open", lambda *args: refuse() if args[1] == "mnt" else open_(*args))
    elif what == "enter":
        monkeypatch.setattr(namespaces, "_setns", refuse)
    with pytest.raises(OSError, match=what):
        namespaces.become_root(refuse if what == "maps" else lambda _process: None)
    monkeypatch.undo()
    assert stores.descriptors() == before
    assert os.readlink("/proc/self/ns/user") == here
