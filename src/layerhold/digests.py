"""Digests of content: SHA-2 names as in records and manifests, and the CRC-64 of tar-split files.

The CRC is Go's ISO one (x^64 + x^4 + x^3 + x + 1, reflected, all ones before and after). The `fastcrc` wheel computes
it at memory speed; without the wheel, `_folded` does with a few shifts of whole big integers what a table would do byte
by byte, some twenty times faster than the table.
"""

from __future__ import annotations

from layerhold.errors import InvalidDigest, InvalidDigestLength, UnsupportedDigest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["Digest", "crc64", "sha256_of"]

_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_ONES = (1 << 64) - 1
_FOLDED_AT_ONCE = 32 << 10  # big integers that stay in the processor's nearer caches.


class Digest(str):
    """The digest of some content, such as `sha256:…`; the empty one stands for "not known"."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take `text` as a digest. Raises InvalidDigest, or its InvalidDigestLength or UnsupportedDigest."""
        algorithm, _, digits = text.partition(":")
        if len(digits) != _LENGTHS.get(algorithm) or digits.strip("0123456789abcdef"):
            raise _wrong(algorithm, digits)(text)
        return cls(text)

    @property
    def algorithm(self) -> str:
        """The part before the colon."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part after the colon."""
        return self.partition(":")[2]


def _wrong(algorithm: str, digits: str) -> type[InvalidDigest]:
    """Say what is wrong with a digest, as Go's library for digests does (opencontainers/go-digest, digest.go)."""
    import re

    if digits and algorithm in _LENGTHS:
        return InvalidDigest if len(digits) == _LENGTHS[algorithm] else InvalidDigestLength
    known_form = re.fullmatch(r"[a-z0-9]+([.+_-][a-z0-9]+)*", algorithm) and re.fullmatch("[a-zA-Z0-9=_-]+", digits)
    return UnsupportedDigest if known_form else InvalidDigest


def sha256_of(data: bytes | memoryview) -> Digest:
    """Compute the SHA-256 of `data`."""
    from hashlib import sha256

    return Digest(f"sha256:{sha256(data).hexdigest()}")


def crc64(data: bytes | memoryview, value: int = 0) -> int:
    """Compute the CRC-64 of `data`; `value` is that of what came before it: `crc64(b, crc64(a)) == crc64(a + b)`."""
    global _crc64  # noqa: PLW0603 - the wheel is looked for once, and only where a CRC is needed.
    if _crc64 is None:
        _crc64 = _fastest()
    return _crc64(data, value)


_crc64: Callable[[bytes | memoryview, int], int] | None = None


def _fastest() -> Callable[[bytes | memoryview, int], int]:
    try:
        from fastcrc.crc64 import go_iso
    except ImportError:
        return _folded
    return go_iso


def _folded(data: bytes | memoryview, value: int = 0) -> int:
    """Compute what `crc64` computes, in plain Python."""
    for start in range(0, len(data), _FOLDED_AT_ONCE):
        value = _fold(data[start : start + _FOLDED_AT_ONCE], value)
    return value


def _fold(data: bytes | memoryview, value: int) -> int:
    """Reduce one piece.

    Bit 0 of the integer is the coefficient of the highest power, so `width` bits followed by 64 zeros (for the
    checksum) are the same integer, 64 bits wider. As x^64 = x^4 + x^3 + x + 1 modulo the polynomial, and squaring keeps
    that shape, x^(64 s) = x^(4 s) + x^(3 s) + x^s + 1 for every power of two s: whatever stands more than 64 s bits
    before the end can be moved there in four additions.
    """
    bits = int.from_bytes(data, "little") ^ value ^ _ONES
    width = 8 * len(data) + 64
    while width > 64:
        step = 1 << ((width - 1) >> 6).bit_length() - 1
        end = 64 * step
        head = bits & ((1 << width - end) - 1)
        head_width = width - end
        bits >>= head_width
        width = max(end, head_width + 4 * step)
        bits <<= width - end
        at = width - head_width
        bits ^= (head << at) ^ (head << at - step) ^ (head << at - 3 * step) ^ (head << at - 4 * step)
    return bits ^ _ONES
