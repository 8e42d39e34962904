"""A record file's text with some records changed."""

from __future__ import annotations

import json

import pytest

from layerhold.records.splice import Change, spliced

A, B, C = (b'{"id":"%b"}' % id for id in (b"a", b"b", b"c"))


@pytest.mark.parametrize("empty", [b"[]", b"[ ]", b"[\n]\n", b"[\t\r\n  ]"])
def test_the_first_records_of_an_empty_array(empty: bytes) -> None:
    """An array without records may have been written by hand, with blanks in it."""
    found = spliced(empty, [Change(old=None, new=A), Change(old=None, new=B)])
    assert found is not None
    assert json.loads(found) == [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ([A], b"[%b,%b]" % (B, C)),
        ([B], b"[%b,%b]" % (A, C)),
        ([C], b"[%b,%b]" % (A, B)),
        ([C, B], b"[%b]" % A),
        ([A, B], b"[%b]" % C),
        ([A, C, B], b"[]"),
    ],
)
def test_records_that_go_take_one_comma_each(gone: list[bytes], left: bytes) -> None:
    text = b"[" + b",".join([A, B, C]) + b"]"
    assert spliced(text, [Change(old=raw, new=None) for raw in gone]) == left
    added = [Change(old=None, new=b'{"id":"d"}')]
    with_one = spliced(text, [*(Change(old=raw, new=None) for raw in gone), *added])
    assert with_one == left[:-1] + (b"" if left == b"[]" else b",") + b'{"id":"d"}]'
