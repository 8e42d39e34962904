"""A bar for those at a terminal, and for nobody else."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.stores import QUIET

# The bar comes at once, where it comes at all.
_NAME = """import sys
from layerhold.cli import progress
from layerhold.cli.main import run
sys.argv[0] = {name!r}
progress._AFTER = -1
run()
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("file")
        info.uid, info.gid, info.size = os.getuid(), os.getgid(), 1000
        tar.addfile(info, io.BytesIO(bytes(1000)))
    return path


def run(folder: Path, *words: str, name: str = "layerhold", code: str = _NAME) -> tuple[str, bytes]:
    """Run with a terminal as standard error; give what came on both ways."""
    store = ["-g", f"{folder}/root", "-R", f"{folder}/run", "-s", "vfs"]
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code.format(name=name), *store, *words],
            check=True,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            env={**os.environ, **QUIET, "TERM": "xterm", "COLUMNS": "100"},
            timeout=60,
        )
        os.close(terminal)
        return done.stdout, drained(master)
    finally:
        os.close(master)


def drained(master: int) -> bytes:
    seen = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:  # the other end is closed, and nothing is left
            return seen
        seen += block


def test_a_terminal_gets_a_bar_and_the_pipe_what_it_always_gets(tmp_path: Path, archive: Path) -> None:
    pytest.importorskip("rich")
    out, bar = run(tmp_path, "import-layer", "-i", "a" * 64, "-f", str(archive))
    assert out == "a" * 64 + "\n"
    assert b"Unpacking" in bar
    assert b"10.2 kB of 10.2 kB, 1 entries" in bar
    out, bar = run(tmp_path, "diff", "-f", str(tmp_path / "out.tar"), "a" * 64)
    assert b"Packing" in bar
    assert (tmp_path / "out.tar").read_bytes() == archive.read_bytes()


def test_every_long_command_has_one(tmp_path: Path, archive: Path) -> None:
    pytest.importorskip("rich")
    layer, other = "a" * 64, "b" * 64
    run(tmp_path, "import-layer", "-i", layer, "-f", str(archive))
    run(tmp_path, "create-image", "-i", "d" * 64, layer)
    for words, phase in [
        (("check",), "Checking"),
        (("create-layer", "-i", other, layer), "Copying"),
        (("create-container", "-i", "c" * 64, "d" * 64), "Copying"),
        (("create-storage-layer", "-i", "e" * 64, layer), "Copying"),
        (("applydiff", "-f", str(archive), other), "Copying"),
        (("applydiff", "-f", str(archive), other), "Unpacking"),
        (("copy", str(archive), f"{other}:/in"), "Copying"),
        (("changes", layer), "Comparing"),
        (("diffsize", layer), "Comparing"),
        (("dedup",), "Looking for files"),
        (("gc",), "Removing"),
        (("delete-container", "c" * 64), "Removing"),
        (("delete", other), "Removing"),
        (("delete-image", "d" * 64), "Removing"),
        (("import-layer", "-i", layer, "-f", str(archive)), "Unpacking"),
        (("delete-layer", layer), "Removing"),
        (("wipe",), "Removing"),
    ]:
        assert phase.encode() in run(tmp_path, *words)[1], words


def test_nobody_needs_one_for_a_moment(tmp_path: Path, archive: Path) -> None:
    code = _NAME.replace("-1", "60")
    assert run(tmp_path, "import-layer", "-f", str(archive), code=code)[1] == b""


def test_there_is_none_under_the_other_name(tmp_path: Path, archive: Path) -> None:
    assert run(tmp_path, "import-layer", "-f", str(archive), name="containers-storage")[1] == b""


def test_there_is_none_without_rich(tmp_path: Path, archive: Path) -> None:
    code = "import sys; sys.modules['rich'] = None\n" + _NAME
    assert run(tmp_path, "import-layer", "-f", str(archive), code=code)[1] == b""


def test_there_is_none_in_a_pipe(tmp_path: Path, archive: Path) -> None:
    words = ["-g", f"{tmp_path}/root", "-R", f"{tmp_path}/run", "-s", "vfs", "import-layer", "-f", str(archive)]
    done = subprocess.run(
        [sys.executable, "-c", _NAME.format(name="layerhold"), *words], check=True, capture_output=True
    )
    assert done.stderr == b""
