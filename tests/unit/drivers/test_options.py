"""The options of a driver, as text."""

from __future__ import annotations

import pytest

from layerhold.drivers import overlay_home
from layerhold.drivers.options import parse
from layerhold.errors import BadConfig

KNOWN = frozenset({"size", "flag"})


@pytest.mark.parametrize("option", ["size=1", "overlay.size=1", "overlay2.size=1", ".size=1", "Overlay.SIZE=1"])
def test_prefix_may_be_there_or_not(option: str) -> None:
    assert parse([option], "overlay", KNOWN).get("size") == "1"


def test_last_value_counts_and_equal_signs_belong_to_it() -> None:
    options = parse(["size=1", "size=a=b"], "overlay", KNOWN)
    assert options.get("size") == "a=b"
    assert options.all("size") == ["1", "a=b"]


def test_options_of_other_drivers_are_passed_over() -> None:
    assert parse(["vfs.size=1", "btrfs.nonsense=1"], "overlay", KNOWN).get("size") == ""


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("nonsense=1", 'unknown option "nonsense" ("nonsense=1")'),
        ("overlay.nonsense=1", 'unknown option "nonsense" ("overlay.nonsense=1")'),
        ("overlay.a.b=1", 'unknown option "a.b" ("overlay.a.b=1")'),
        ("Other.size=1", 'unknown driver "other" in option "Other.size=1"'),
        ("size", "unable to parse key/value option: size"),
    ],
)
def test_what_is_not_known_or_malformed(option: str, sentence: str) -> None:
    with pytest.raises(BadConfig) as raised:
        parse([option], "overlay", KNOWN)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("T", True), ("false", False), ("0", False)])
def test_flags(text: str, value: bool) -> None:
    assert parse([f"flag={text}"], "overlay", KNOWN).flag("flag") is value


@pytest.mark.parametrize("text", ["perhaps", ""])
def test_flag_that_is_neither(text: str) -> None:
    with pytest.raises(BadConfig, match=f'parsing "{text}": invalid syntax'):
        parse([f"flag={text}", "flag=true"], "overlay", KNOWN).flag("flag")


def test_flag_that_is_not_given() -> None:
    assert not parse([], "overlay", KNOWN).flag("flag")


def test_settings_of_overlay() -> None:
    settings = overlay_home.settings(["mountopt=nodev,metacopy=on", "overlay.skip_mount_home=true", "sync=filesystem"])
    assert settings.mount_options == ("nodev", "metacopy=on")
    assert not settings.mount_home
    assert not settings.squash
