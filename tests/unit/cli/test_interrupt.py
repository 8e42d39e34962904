"""Ctrl-C in the middle of an import: status 130, at once, and nothing half-made stays."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerhold import Store
from layerhold.cli.interruptible import Interruptible
from tests import stores

# A shell that starts tests in the background has them ignore Ctrl-C, which children inherit.
_RUN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from layerhold.cli.main import run
run()
"""


@pytest.fixture(params=["vfs", pytest.param("overlay", marks=pytest.mark.root)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with stores.scratch("interrupt") as folder:
        store = Store.open(graphroot=folder / "root", runroot=folder / "run", driver=request.param)
        store.layers.create(id="1" * 64, names=["kept"], diff=io.BytesIO(archive()))
        yield store


def archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(40):
            info = tarfile.TarInfo(f"file-{number}")
            info.uid, info.gid, info.size = os.getuid(), os.getgid(), 100_000
            tar.addfile(info, io.BytesIO(os.urandom(100_000)))
    return file.getvalue()


def names(store: Store) -> set[str]:
    tops = (store.config.graphroot, store.config.runroot)
    return {os.path.join(top, name) for root in tops for top, inside, files in os.walk(root) for name in inside + files}


def half_made(store: Store) -> list[Path]:
    return list(Path(store.config.graphroot).glob("*/tempdirs/temp-dir-*/**/file-3"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("by_file", [False, True], ids=["stdin", "fifo"])
def test_an_import_that_is_interrupted(
    store: Store, tmp_path: Path, pack: Callable[[bytes], bytes], by_file: bool
) -> None:
    before = names(store), store.layers["kept"].record
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = ["-g", store.config.graphroot, "-R", store.config.runroot, "-s", store.driver.name, "import-layer"]
    more = ["-f", str(fifo)] if by_file else []
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, *words, "-n", "new", *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | stores.QUIET,
    )
    assert process.stdin is not None
    with process, fifo.open("wb") if by_file else process.stdin as stream:
        content = pack(archive())
        stream.write(content[: len(content) // 2])
        stream.flush()
        until = time.monotonic() + 30
        while not half_made(store) and time.monotonic() < until:
            time.sleep(0.01)
        assert half_made(store)
        process.send_signal(signal.SIGINT)  # while it waits for more, which does not come
        assert process.wait(10) == 130
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    assert (names(store), store.layers["kept"].record) == before
    reopened = Store.open(graphroot=store.config.graphroot, runroot=store.config.runroot, driver=store.driver.name)
    assert [layer.names for layer in reopened.layers] == [("kept",)]
    assert reopened.check().ok
    reopened.layers.create(names=["new"], diff=io.BytesIO(archive()))


def test_what_comes_by_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"abcdef")
        with Interruptible(reading) as stream:
            assert stream.read1(2) == b"ab"
            assert stream.read(2) == b"cd"
            os.close(writing)
            assert stream.read() == b"ef"
            assert stream.read1() == b""
    finally:
        os.close(reading)
