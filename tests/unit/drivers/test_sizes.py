"""Sizes in options, as Go's drivers read and write them; the answers are those of containers-storage 1.64."""

from __future__ import annotations

import pytest

from layerhold.drivers.sizes import Limits, parse_size, read_limits, shown_size
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


def test_limits() -> None:
    assert read_limits([], Limits(size=5)) == Limits(size=5)
    assert read_limits([("SIZE", "1k"), ("inodes", "7")], Limits(size=5)) == Limits(size=1024, inodes=7)
    assert read_limits([("size", "0")], Limits(size=5, inodes=2)) == Limits(inodes=2)
    assert read_limits([("inodes", "18446744073709551615")], Limits()).inodes == 2**64 - 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("size", "-1", "invalid size: '-1'"),
        ("inodes", "", 'strconv.ParseUint: parsing "": invalid syntax'),
        ("inodes", "-1", 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("inodes", "10k", 'strconv.ParseUint: parsing "10k": invalid syntax'),
        ("inodes", "18446744073709551616", 'strconv.ParseUint: parsing "18446744073709551616": value out of range'),
        ("inodes", "9" * 5000, "value out of range"),
        ("Colour", "red", "unknown option colour"),
    ],
)
def test_bad_limits(key: str, value: str, words: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read_limits([(key, value)], Limits())
    assert words in str(caught.value)
