"""One `storage.conf`: what it sets, in which line, and how errors are worded."""

from __future__ import annotations

import pytest

from layerhold.errors import BadConfig
from layerhold.settings.storage_conf import KEYS, TEXT, YES_OR_NO, parse

EXAMPLE = {"string": '"a"', "boolean": "true", "integer": "7", "list": '["a"]', "map": '{a = "b"}', "old": '"a"'}
VALUE = {"string": "a", "boolean": True, "integer": 7, "list": ("a",), "map": {"a": "b"}, "old": "a"}


@pytest.mark.parametrize("key", KEYS)
def test_each_key(key: str) -> None:
    table, _, name = key.rpartition(".")
    (setting,) = parse(f"[{table}]\n\n{name} = {EXAMPLE[KEYS[key]]}\n", "f")
    assert (setting.key, setting.value, setting.origin, setting.known) == (key, VALUE[KEYS[key]], "f:3", True)


@pytest.mark.parametrize("key", [key for key, kind in KEYS.items() if kind != "old"])
def test_each_key_refuses_another_type(key: str) -> None:
    table, _, name = key.rpartition(".")
    wrong = "5" if KEYS[key] == TEXT else '"true"'
    with pytest.raises(BadConfig) as caught:
        parse(f"\n[{table}]\n{name} = {wrong}\n", "/a/f")
    assert str(caught.value).startswith(f'decode configuration "/a/f": toml: line 3 (last key "{key}"): ')


@pytest.mark.parametrize(
    ("line", "why", "hint"),
    [
        ("driver = true", "incompatible types: TOML value has type bool; destination has type string", '"true"'),
        ("driver = 1.5", "incompatible types: TOML value has type float64; destination has type string", '"1.5"'),
        ("driver = [1]", "incompatible types: TOML value has type []any; destination has type string", ""),
        ("driver = {}", "incompatible types: TOML value has type map[string]any; destination has type string", ""),
        ("driver = 07:32:00", "incompatible types: TOML value has type time.Time; destination has type string", ""),
        (
            'transient_store = "true"',
            "incompatible types: TOML value has type string; destination has type boolean",
            "transient_store = true",
        ),
        ('driver_priority = "vfs"', "unable to cast to interface array: vfs", '["vfs"]'),
        ("driver_priority = [[true]]", "unsupported item in attributed string slice: [true]", ""),
        ("driver_priority = [{a=1}]", 'unsupported key "a" in map: map[a:1]', ""),
        ("driver_priority = [{append=1}]", "unable to cast append to bool: append", ""),
    ],
)
def test_wrong_type(line: str, why: str, hint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse(f"[storage]\n{line}", "f")
    assert str(caught.value).endswith(f": {why}")
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


@pytest.mark.parametrize("value", ["-1", "4294967296"])
def test_number_out_of_range(value: str) -> None:
    with pytest.raises(BadConfig, match=f"{value} is out of range for uint32"):
        parse(f"[storage.options]\nauto-userns-min-size = {value}", "f")


@pytest.mark.parametrize("text", ["storage = 1", "[storage]\noptions = 'a'", "[[storage.options]]\nsize = '1'"])
def test_no_table(text: str) -> None:
    with pytest.raises(BadConfig, match="expected table but found"):
        parse(text, "f")


@pytest.mark.parametrize("text", ["[storage", "a = ", "\0", "a = 1\na = 2", f"a = {'[' * 5000}", f"a = {'9' * 5000}"])
def test_no_toml(text: str) -> None:
    with pytest.raises(BadConfig, match=r'^decode configuration "f": toml: '):
        parse(text, "f")


def test_syntax_error_names_the_line() -> None:
    with pytest.raises(BadConfig, match="line 3"):
        parse("[storage]\n\ndriver =\n", "f")


def test_lists_say_whether_they_append() -> None:
    texts = ("['a']", "['a', {append=true}]", "[{append=true}, 'a', {append=false}]", "['a', {}]")
    found = [parse(f"storage.driver_priority = {text}", "f")[0] for text in texts]
    assert [(one.value, one.append) for one in found] == [
        (("a",), None),
        (("a",), True),
        (("a",), False),
        (("a",), None),
    ]


def test_capitals_and_dots_and_quotes() -> None:
    found = parse('Storage.OPTIONS.Size = "1"\n[STORAGE]\nDriver = "a"\n"runroot" = "/r"\n', "f")
    assert {(one.key, one.value) for one in found} == {
        ("storage.options.size", "1"),
        ("storage.driver", "a"),
        ("storage.runroot", "/r"),
    }


def test_name_as_we_write_it_goes_before_capitals() -> None:
    assert [one.value for one in parse('[storage]\ndriver = "a"\nDRIVER = "b"\n', "f")] == ["b", "a"]


@pytest.mark.parametrize("text", ["x = 1", '"storage.driver" = "a"', '[storage]\n"options.size" = "1"', "[storage.x]"])
def test_unknown_keys(text: str) -> None:
    (setting,) = parse(text, "f")
    assert not setting.known
    assert setting.line == text.count("\n") + 1


def test_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse('\ufeff[storage]\ndriver = "a"', "f")[0].line == 2


def test_thin_pools_may_hold_anything() -> None:
    (setting,) = parse("[storage.options.thinpool]\nsize = 5\nx = [1]", "f")
    assert setting.known


def test_booleans_are_those_of_go() -> None:
    assert {key for key, kind in KEYS.items() if kind == YES_OR_NO} == {
        "storage.transient_store",
        "storage.options.disable-volatile",
    }
