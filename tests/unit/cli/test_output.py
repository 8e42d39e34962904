from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from io import FileIO
from pathlib import Path

import pytest

from layerhold import Store
from layerhold.cli.output import described, human, reading, writing
from layerhold.errors import LayerUnknown, NotPermitted
from tests.stores import QUIET


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOENT, "No such file or directory", "/a"), "/a: no such file or directory"),
        (
            OSError(errno.ENOENT, "No such file or directory", b"/a\xff"),
            f"{os.fsdecode(b'/a' + bytes([255]))}: no such file or directory",
        ),
        (OSError(errno.EBUSY, "umount: Device or resource busy", "/a"), "umount /a: device or resource busy"),
        (OSError(errno.ENOSPC, "No space left on device", "/a", None, "/b"), "/a /b: no space left on device"),
        (OSError(errno.ENOSPC, "No space left on device", 3), "no space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (OSError(errno.EINVAL, "NUL in a name", "/a"), "/a: NUL in a name"),
        (OSError("odd"), "odd"),
        (NotPermitted("chown /a"), "chown /a: not permitted"),
        (LayerUnknown("x"), "layer not known"),
    ],
)
def test_errors_as_go_words_them(error: BaseException, text: str) -> None:
    assert described(error) == text


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, reading(str(tmp_path / "gone")):
        pass
    assert described(caught.value) == f"open {tmp_path}/gone: no such file or directory"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (123_456, "123 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_200_000_000, "1.2 GB"),
        (5 * 10**12, "5 TB"),
        (10**19, "10 EB"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert human(count) == text


COMMANDS = [
    ("image", "x"),
    ("container", "c"),
    ("diffsize", "1" * 64),
    ("get-image-data-size", "x", "big"),
    ("get-container-data-size", "c", "big"),
    ("dedup",),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store whose sizes all are 1234567 bytes, but for what is shared in it."""
    with Store.open(graphroot=tmp_path / "root", runroot=tmp_path / "run", driver="vfs") as store:
        layer = store.layers.create(id="1" * 64)
        with layer.mount() as path:
            (path / "file").write_bytes(bytes(1234567))
        data = {"big": bytes(1234567)}
        store.images.create(names=["x"], data=data)
        store.containers.create(names=["c"], data=data)
    return tmp_path


def printed(folder: Path, *words: str, name: str = "layerhold", terminal: bool = True) -> str:
    """What a command prints on a terminal, or in a pipe."""
    code = f"import sys; sys.argv[0] = {name!r}; from layerhold.cli.main import run; run()"
    store = ["-g", f"{folder}/root", "-R", f"{folder}/run", "-s", "vfs"]
    argv = [sys.executable, "-c", code, *store, *words]
    if not terminal:
        return subprocess.run(argv, check=True, capture_output=True, text=True, env=os.environ | QUIET).stdout
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as reader:
        subprocess.run(argv, check=True, stdout=slave, env=os.environ | QUIET, timeout=60)
        os.close(slave)
        return _all_of(reader).decode().replace("\r\n", "\n")


def _all_of(terminal: FileIO) -> bytes:
    """Read what was printed on a terminal, which may come in pieces; that nobody has it open any more is an error."""
    pieces = []
    with suppress(OSError):
        while piece := terminal.read(65536):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("words", COMMANDS)
def test_sizes_are_for_people_at_a_terminal_and_exact_elsewhere(folder: Path, words: tuple[str, ...]) -> None:
    exact = printed(folder, *words, terminal=False)
    assert ("0 bytes" if words == ("dedup",) else "1234567") in exact
    in_units = exact.replace("0 bytes", "0 B").replace("1234567", "1.23 MB")
    assert printed(folder, *words) == in_units
    assert printed(folder, *words, name="containers-storage") == exact


def test_json_is_exact_at_a_terminal_too(folder: Path) -> None:
    as_json = printed(folder, "image", "-j", "x")
    assert as_json == printed(folder, "image", "-j", "x", terminal=False)
    assert json.loads(as_json)[0]["big-data-sizes"] == {"big": 1234567}


def test_a_file_keeps_what_it_holds_until_there_is_something_to_write(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept, and longer")
    with pytest.raises(KeyError), writing(str(file)):
        raise KeyError
    assert file.read_text() == "kept, and longer"
    with writing(str(file)) as out:
        out.write(b"new")
        out.write(b"er")
    assert file.read_text() == "newer"
    with writing(str(file)):
        pass
    assert file.read_text() == ""
    with writing("/dev/null") as out:
        out.write(b"new")
    with pytest.raises(FileNotFoundError) as caught, writing(str(tmp_path / "no/file")):
        pass
    assert described(caught.value) == f"open {tmp_path}/no/file: no such file or directory"
