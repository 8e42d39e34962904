"""What the command prints: lines, JSON, errors in Go's words, and files as `--file` names them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from layerhold.records.codec import encode, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, BinaryIO

    from layerhold.collection import Item


def line(text: str) -> None:
    """Print a line on standard output; bytes that are no UTF-8 come out as they were."""
    sys.stdout.buffer.write(os.fsencode(text) + b"\n")


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
    """Give the text of an error: ours as they are, the system's as Go words them."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror[0].lower() + error.strerror[1:] if error.strerror[1:2].islower() else error.strerror
        return f"open {os.fspath(error.filename)!s}: {text}" if error.filename is not None else text
    return str(error)


@contextmanager
def reading(path: str) -> Iterator[BinaryIO]:
    """Open the file to read from; "" is standard input."""
    if not path:
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


@contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """Open the file to write to; "" is standard output."""
    if not path:
        yield sys.stdout.buffer
        return
    with open(path, "wb") as file:
        yield file
