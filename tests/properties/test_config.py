"""Whatever stands in a `storage.conf`: a configuration, or BadConfig that names the file, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from layerhold.config import Config
from layerhold.errors import BadConfig
from layerhold.settings import storage_conf
from layerhold.settings.toml_lines import Lines

KEYS = [*storage_conf.KEYS, *storage_conf.TABLES, "storage.unknown", "other", '"storage.driver"', "storage.DRIVER"]
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)


def quoted(text: str) -> str:
    """A text as TOML has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


ATOMS = (
    TEXTS.map(quoted)
    | st.sampled_from(
        ["true", "false", "inf", "1979-05-27", "07:32:00", "'''\nx = 1'''", '"overlay"', '"$UID/${A"', '"\\u0000"']
    )
    | st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)


def holding(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Lists and inline tables of values."""
    lists = st.lists(values, max_size=3).map(lambda items: f"[{', '.join(items)}]")
    names = st.sampled_from(["append", "a", "b-c"])
    tables = st.dictionaries(names, values, max_size=2).map(
        lambda items: f"{{{', '.join(f'{name} = {value}' for name, value in items.items())}}}"
    )
    return lists | tables


VALUES = st.recursive(ATOMS, holding, max_leaves=5)
STATEMENTS = st.tuples(st.sampled_from(KEYS), VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}")
FILES = st.lists(STATEMENTS, max_size=6).map("\n".join)


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conf") / "storage.conf"


def load(conf: Path, content: bytes) -> Config | None:
    """Load the settings of a file, None if it is refused, in words that name it."""
    conf.write_bytes(content)
    try:
        return Config.load(env={"CONTAINERS_STORAGE_CONF": str(conf), "HOME": "/", "XDG_RUNTIME_DIR": "/"})
    except BadConfig as error:
        refusal = f"{error} {error.hint}"
    assert str(conf) in refusal
    return None


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
@example(content=b"\xef\xbb\xbf[storage]")
@example(content=b"a = " + b"[" * 3000)
def test_any_bytes(conf: Path, content: bytes) -> None:
    load(conf, content)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=FILES)
def test_any_toml(conf: Path, text: str) -> None:
    load(conf, text.encode())


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=FILES, cut=st.integers(0, 200), junk=st.binary(max_size=3))
def test_damaged_toml(conf: Path, text: str, cut: int, junk: bytes) -> None:
    content = text.encode()
    load(conf, content[:cut] + junk + content[cut:])


@settings(max_examples=200)
@given(values=st.lists(VALUES, min_size=1, max_size=8))
def test_line_of_each_key(values: list[str]) -> None:
    """Whatever the values are, the lines of the keys between them are found."""
    lines, text = {}, "# x = 1\n[a]\n"
    for number, value in enumerate(values):
        lines[f"k{number}"] = text.count("\n") + 1
        text += f"k{number} = {value}  # k{number} = 2\n"
    found = Lines(text)
    assert {key: found.of(("a", key)) for key in lines} == lines
