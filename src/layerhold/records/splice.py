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
    from collections.abc import Iterator, Sequence
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
    added = [change.new for change in changes if change.old is None and change.new is not None]
    kept = b"".join(_pieces(text[:end], sorted(edits)))
    if kept.endswith(b","):  # the last record went
        kept = kept[:-1]
    return b",".join([kept, *added] if len(kept) > 1 else [kept + added[0], *added[1:]] if added else [kept]) + b"]"


def _pieces(text: bytes, edits: Sequence[tuple[int, int, bytes | None]]) -> Iterator[bytes]:
    """Give what stays and what is new, in order. With a record that goes, the comma behind it goes, too."""
    at = 0
    for start, end, new in edits:
        yield text[at:start]
        if new is not None:
            yield new
        at = end + 1 if new is None and text[end : end + 1] == b"," else end
    yield text[at:]


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
