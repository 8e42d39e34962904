"""JSON text by the C functions: what they give and refuse is what `json` does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerhold.records import json_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_encoded_as_json_does(value: object) -> None:
    text = json_text.encode(value)
    assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert json_text.decode(f" \n{text}\t") == json.loads(text)


@pytest.mark.parametrize("text", ["", " ", "[1,]", "{", '{"a":1} x', "nul", '"\n"', "[1e999]", "NaN", "-", "[1] [2]"])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_text.decode(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text.encode([value])


def test_values_that_json_does_not_have() -> None:
    with pytest.raises(TypeError):
        json_text.encode({"a": b"bytes"})


def test_without_the_c_functions() -> None:
    script = """
import sys
sys.modules["_json"] = None
from layerhold.records import json_text
assert json_text.encode({"a": [1, "\\u2028\\u00e4", None]}) == '{"a":[1,"\\u2028\\u00e4",null]}'
assert json_text.decode('{"a": [1.5]}') == {"a": [1.5]}
for wrong in ("[1e999]", "[NaN]", "[1", "x", "[1] 2"):
    try:
        json_text.decode(wrong)
    except ValueError:
        continue
    raise SystemExit(wrong)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
