"""In which line of a TOML text a key is set: `tomllib` does not tell.

The text has been read by `tomllib` before, so it is valid, and the scan can be simple: it follows table headers and
`key = value` statements, and steps over values. What stands in an inline table counts as being in the statement's line.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_STATEMENT = rf"(?P<blank>\s+|\#[^\n]*)|\[\[?[ \t]*(?P<table>{_KEY})[ \t]*\]\]?|(?P<key>{_KEY})[ \t]*="
# Strings with three quotes may end in five: two of them are the string's.
_VALUE = r"""\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*|."""


class Lines:
    """The lines of one text."""

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str, ...], int] = {}
        for line, key in _statements(text):
            self._lines.setdefault(key, line)

    def of(self, key: Sequence[str]) -> int:
        """Give the line (from 1) that sets `key`, a path of names; 0 if none does.

        If only a table within or around the key can be found, it is that table's line.
        """
        wanted = tuple(key)
        if wanted in self._lines:
            return self._lines[wanted]
        within = [line for found, line in self._lines.items() if found[: len(wanted)] == wanted]
        around = [line for found, line in self._lines.items() if found == wanted[: len(found)]]
        return within[0] if within else around[-1] if around else 0


def _statements(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Give the line and the full key of each table header and each `key = value`."""
    import re

    statement, value = re.compile(_STATEMENT), re.compile(_VALUE, re.DOTALL)
    part = re.compile(_PART)
    table: tuple[str, ...] = ()
    position, line = 0, 1
    while position < len(text) and (match := statement.match(text, position)):
        end = match.end()
        if match["table"]:
            table = _names(part.findall(match["table"]))
            yield line, table
        elif match["key"]:
            yield line, table + _names(part.findall(match["key"]))
            depth = 0
            while end < len(text) and (depth or text[end] != "\n"):
                token = value.match(text, end)
                if token is None:  # A lone quote: the text was not valid.
                    return
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
                end = token.end()
        line += text.count("\n", position, end)
        position = end


def _names(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in parts)
