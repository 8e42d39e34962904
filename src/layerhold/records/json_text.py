"""JSON text to values and back, by the C functions behind the standard library's `json`.

`json` itself loads `re`, which costs a short command more than reading its records does. Where the C functions are
missing, `json` takes their place.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def _unknown(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class _Settings:
    """What the scanner asks for."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_int = int
    parse_float = staticmethod(_float)
    parse_constant = staticmethod(_refuse)


# Gives the value that begins at a place of a text, and where it ends. Raises StopIteration (with the place) where no
# value begins, ValueError, which has `pos` and `msg` if it is about the text, and SystemError (see `load_errors`).
scan: Callable[[str, int], tuple[Any, int]]
_chunks: Callable[[object, int], Any]

try:
    from _json import encode_basestring, make_encoder, make_scanner
except ImportError:
    import json

    scan = json.JSONDecoder(parse_constant=_refuse, parse_float=_float).scan_once  # type: ignore[attr-defined]
    _made = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)

    def encode(value: object) -> str:
        """Give a value as JSON without spaces. Raises ValueError for numbers that JSON does not have."""
        return _made.encode(value)
else:
    scan = make_scanner(_Settings)  # type: ignore[arg-type]
    _chunks = make_encoder(None, _unknown, encode_basestring, None, ":", ",", False, False, False)

    def encode(value: object) -> str:
        """Give a value as JSON without spaces. Raises ValueError for numbers that JSON does not have."""
        return "".join(_chunks(value, 0))


def load_errors() -> None:
    """Load what the C functions of Python 3.11 say errors with; until then they raise SystemError, without a reason."""
    import json.decoder  # noqa: F401


def decode(text: str) -> object:
    """Give the one value that a text is. Raises ValueError."""
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        value, end = scan(text, start)
    except StopIteration:
        raise ValueError("a value is expected") from None
    except SystemError:
        load_errors()
        return decode(text)
    if text[end:].strip(" \t\r\n"):
        raise ValueError("something stands behind the value")
    return value
