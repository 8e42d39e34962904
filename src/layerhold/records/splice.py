"""A record file's text with some records changed: the bytes of all others are copied in a few long pieces.

To write one record of 10,000 anew, the text is not taken apart: the record is looked for as programs write it, and
must be found once, whole, and as it was read. If anything is not so (a file edited by hand, the same object twice) the
caller is told, and puts the text together from all records instead.
"""

from __future__ import annotations

from layerhold.records import json_text
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_MOST_ENDS = 64  # places where an object that has objects in it may end


class Change(Value):
    """One record: its `old` bytes, or, if these are not known, the JSON that was read (None: it is new); its new bytes.

    `new` is None if the record goes.
    """

    old: bytes | dict[str, Any] | None
    new: bytes | None


def spliced(text: bytes, changes: Sequence[Change]) -> bytes | None:
    """Give the text of an array of records with `changes`, new records at its end; None if that cannot be done so."""
    end = text.rfind(b"]")
    if text[:1] != b"[" or end < 0 or text[end + 1 :].strip():
        return None
    edits = []
    for change in changes:
        if change.old is not None:
            span = _span(text, change.old)
            if span is None:
                return None
            edits.append((*span, change.new))
    pieces = _kept(text, end, sorted(edits))
    some = len(pieces) > 1 or text.find(b"{", 0, len(pieces[0])) > 0
    for change in changes:
        if change.old is None and change.new is not None:
            pieces += [b",", change.new] if some else [change.new]
            some = True
    return b"".join([*pieces, b"]"])


def _kept(text: bytes, end: int, edits: Sequence[tuple[int, int, bytes | None]]) -> list[bytes | memoryview]:
    """Give what stays and what is new, in order, up to `end`; nothing is copied yet, and no piece is empty.

    With a record that goes, the comma behind it goes, too, or that before it if it was the last.
    """
    whole = memoryview(text)
    pieces: list[bytes | memoryview] = []
    at = 0
    for start, stop, new in edits:
        pieces += [whole[at:start], b"" if new is None else new]
        at = stop + 1 if new is None and text[stop : stop + 1] == b"," else stop
    pieces = [piece for piece in (*pieces, whole[at:end]) if len(piece)]
    if pieces[-1][-1:] == b",":
        pieces[-1] = pieces[-1][:-1]
    return pieces


def _span(text: bytes, old: bytes | dict[str, Any]) -> tuple[int, int] | None:
    """Find a record: where it begins and ends."""
    if isinstance(old, bytes):
        start = text.find(old)
        end = start + len(old)
        return (start, end) if start > 0 and text.find(old, end) < 0 and _is_apart(text, start, end) else None
    needle = b'{"id":%b' % json_text.encode(old.get("id")).encode()
    start = text.find(needle)
    if start < 1 or text.find(needle, start + 1) >= 0:
        return None
    end = start
    for _ in range(_MOST_ENDS):
        end = text.find(b"}", end) + 1
        if not end:
            return None
        if _is_apart(text, start, end) and _says(text[start:end], old):
            return start, end
    return None


def _is_apart(text: bytes, start: int, end: int) -> bool:
    return text[start - 1 : start] in (b"[", b",") and text[end : end + 1] in (b",", b"]")


def _says(text: bytes, value: dict[str, Any]) -> bool:
    try:
        return json_text.decode(text.decode()) == value
    except ValueError:
        return False
