"""Which line sets a key."""

from __future__ import annotations

import pytest

from layerhold.settings.toml_lines import Lines

TEXT = '''\
# a comment = 1
top = 1
[storage]  # another
driver = "vfs" # a = 2

long = """
driver = 1
[storage.options]
""""
'runroot' = '[storage.x]'
list = [
  "a", # ]
  { append = true },
]
dotted . "key" = 1
inline = { a = 1, b = { c = [2] } }
[storage.options]
size = "="
[ storage . "options" . vfs ]
sync = 1979-05-27T07:32:00Z
[[array]]
x = 1
[after]
raw = \'\'\'
x = 1\'\'\'
last = 0'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("top", 2),
        ("storage", 3),
        ("storage.driver", 4),
        ("storage.long", 6),
        ("storage.runroot", 10),
        ("storage.list", 11),
        ("storage.dotted.key", 15),
        ("storage.inline", 16),
        ("storage.options", 17),
        ("storage.options.size", 18),
        ("storage.options.vfs", 19),
        ("storage.options.vfs.sync", 20),
        ("array", 21),
        ("array.x", 22),
        ("after.raw", 24),
        ("after.last", 26),
    ],
)
def test_key(key: str, line: int) -> None:
    assert Lines(TEXT).of(key.split(".")) == line


def test_inline_table_counts_as_its_statement() -> None:
    assert Lines(TEXT).of(("storage", "inline", "b", "c")) == 16


def test_table_that_only_a_dotted_key_makes() -> None:
    assert Lines(TEXT).of(("storage", "dotted")) == 15
    assert Lines("\na.b.c = 1\n").of(("a",)) == 2


def test_key_that_is_not_there() -> None:
    assert Lines(TEXT).of(("nowhere",)) == 0
    assert Lines("").of(("a",)) == 0


@pytest.mark.parametrize("text", ['a = "', "a = '", "[a", "= 1", "a = [", '"""', "\x00", "a = 1\n?"])
def test_text_that_is_no_toml_ends(text: str) -> None:
    assert Lines(text).of(("a",)) in (0, 1)
