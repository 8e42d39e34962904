"""What the command prints: lines, JSON, errors in Go's words, and files as `--file` names them."""

from __future__ import annotations

import io
import os
import stat
import sys

from layerhold.blocks import contextmanager
from layerhold.errors import StorageError
from layerhold.records.codec import encode, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, BinaryIO, TypeVar

    from layerhold.collection import Item

    File = TypeVar("File", bound=io.FileIO)


def program() -> str:
    """The name that the command goes by: its own, or that of Go's program if it is called so."""
    return "containers-storage" if os.path.basename(sys.argv[0]) == "containers-storage" else "layerhold"


def size(count: int, noun: str = "") -> str:
    """Give a number of bytes: in units at a terminal, elsewhere and as Go's program exactly, with `noun` behind it."""
    if sys.stdout.isatty() and program() != "containers-storage":
        return human(count)
    return f"{count}{noun}"


def human(count: float) -> str:
    """Give a number of bytes in units, by powers of ten and with three digits at most, as Podman does: `1.2 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.0f} EB"


def line(text: str) -> None:
    """Print a line on standard output; bytes that are no UTF-8 come out as they were."""
    sys.stdout.buffer.write(os.fsencode(text) + b"\n")


def lines(texts: Sequence[str]) -> None:
    """Print many lines on standard output at once; bytes that are no UTF-8 come out as they were."""
    if texts:
        sys.stdout.buffer.write(os.fsencode("\n".join(texts) + "\n"))


def raw_lines(texts: Sequence[bytes]) -> None:
    """Print many lines that are bytes on standard output at once."""
    if texts:
        sys.stdout.buffer.write(b"\n".join(texts) + b"\n")


def complain(text: str) -> None:
    """Print a line on standard error."""
    sys.stdout.flush()
    sys.stderr.buffer.write(os.fsencode(text) + b"\n")
    sys.stderr.flush()


def json(value: object) -> None:
    """Print a value as one line of JSON, as Go's encoder writes it."""
    sys.stdout.buffer.write(to_json(value) + b"\n")


def json_records(items: Iterable[Item[Any]], *, empty: bytes = b"[]") -> None:
    """Print records as a JSON array; `empty` stands for none (Go has `null` in some places)."""
    encoded = [encode(item.record) for item in items]
    sys.stdout.buffer.write((b"[" + b",".join(encoded) + b"]" if encoded else empty) + b"\n")


def json_record(item: Item[Any]) -> None:
    """Print one record as a JSON object."""
    sys.stdout.buffer.write(encode(item.record) + b"\n")


def described(error: BaseException) -> str:
    """Give the text of an error: ours as they are, the system's as Go words them (`<call> <path>: <reason>`)."""
    if not isinstance(error, OSError) or isinstance(error, StorageError) or not error.strerror:
        return str(error)
    call, _, reason = error.strerror.rpartition(": ")
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if reason == os.strerror(error.errno or 0):
        reason = reason[:1].lower() + reason[1:]
    where = " ".join(filter(None, (call, *names)))
    return f"{where}: {reason}" if where else reason


def expect_much() -> None:
    """Have this process keep memory for the next block: it is about to read or write a whole layer."""
    from layerhold.linux import memory

    memory.keep_freed_blocks()


@contextmanager
def reading(path: str) -> Iterator[BinaryIO]:
    """Open the file to read from; "" is standard input."""
    if not path:
        with _interruptible(sys.stdin.buffer) as file:
            yield file
        return
    with io.BufferedReader(_opened(io.FileIO, path, "rb")) as opened, _interruptible(opened) as file:
        yield file


@contextmanager
def _interruptible(file: BinaryIO) -> Iterator[BinaryIO]:
    """Give the file as one that Ctrl-C ends the reading of, in a thread too, if it is one that may give nothing."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        yield file
        return
    from layerhold.cli.interruptible import Interruptible

    with Interruptible(file.fileno()) as stream:
        yield stream  # type: ignore[misc]


@contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """Open the file to write to; "" is standard output. What it holds is kept if the block fails before it writes."""
    if not path:
        yield sys.stdout.buffer
        return
    raw = _opened(_Overwriting, path, "wb")
    with io.BufferedWriter(raw) as file:
        yield file
        raw.empty()


class _Overwriting(io.FileIO):
    """A file whose old content goes when the first new bytes come."""

    def __init__(self, path: str, mode: str) -> None:
        super().__init__(path, mode, opener=lambda path, flags: os.open(path, flags & ~os.O_TRUNC, 0o666))
        self._emptied = False

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - whatever has bytes, as FileIO takes it
        self.empty()
        return super().write(data)

    def empty(self) -> None:
        """Drop the old content; again does nothing."""
        if not self._emptied and stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            os.ftruncate(self.fileno(), 0)
        self._emptied = True


def _opened(kind: type[File], path: str, mode: str) -> File:
    try:
        return kind(path, mode)
    except OSError as error:
        raise OSError(error.errno, f"open: {error.strerror}", path) from None
