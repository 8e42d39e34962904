"""Texts in errors."""

from __future__ import annotations

import pytest

from layerhold.errors import quoted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain é", '"plain é"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\n\t\x01", '"\\n\\t\\x01"'),
        ("\udcff", '"\\xff"'),
        ("\u200b\U000e0001", '"\\u200b\\U000e0001"'),
    ],
)
def test_quoted_as_go_quotes(text: str, said: str) -> None:
    assert quoted(text) == said
