"""Sizes in options, as Go's drivers read and write them; the answers are those of containers-storage 1.64."""

from __future__ import annotations

import pytest

from layerhold.drivers.sizes import parse_size, shown_size
from layerhold.errors import BadConfig


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("10M", 10 << 20, "10.49MB"),
        ("10m", 10 << 20, "10.49MB"),
        ("10MB", 10 << 20, "10.49MB"),
        ("10MiB", 10 << 20, "10.49MB"),
        ("10 M", 10 << 20, "10.49MB"),
        ("10k", 10 << 10, "10.24kB"),
        ("1.5g", 3 << 29, "1.611GB"),
        ("1e3", 1000, "1kB"),
        ("5b", 5, "5B"),
        ("1p", 1 << 50, "1.126PB"),
        ("99999999999G", 2**63 - 1, "9.223EB"),
        ("0", 0, "0B"),
    ],
)
def test_sizes(text: str, size: int, shown: str) -> None:
    assert parse_size(text) == size
    assert shown_size(size) == shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1x", "invalid suffix: 'x'"),
        ("1kx", "invalid suffix: 'kx'"),
        ("1bb", "invalid suffix: 'bb'"),
        ("1kibi", "invalid suffix: 'kibi'"),
        ("abc", "invalid size: 'abc'"),
        ("-1", "invalid size: '-1'"),
        ("", "invalid size: ''"),
        (" ", "invalid size: ' '"),
        ("1.2.3", "invalid size: '1.2.3'"),
        ("1_0", "invalid size: '1_0'"),
    ],
)
def test_what_is_no_size(text: str, words: str) -> None:
    with pytest.raises(BadConfig) as raised:
        parse_size(text)
    assert str(raised.value) == words
