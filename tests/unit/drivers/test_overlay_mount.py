"""The mount of an overlay layer, as a value."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from layerhold.drivers.overlay_mount import MOST_LOWERS, MountSpec, option_string, specify
from layerhold.errors import DriverError
from layerhold.linux import mounts


def spec(lowers: Sequence[str] = (), options: Sequence[str] = (), *, read_only: bool = False) -> MountSpec:
    return specify(
        target="/h/i/merged",
        diff="/h/i/diff",
        work="/h/i/work",
        lowers=lowers,
        empty="/h/i/empty",
        options=options,
        read_only=read_only,
    )


def test_writable() -> None:
    assert option_string(spec(["/h/b/diff", "/h/a/diff"])) == (
        "lowerdir=/h/b/diff:/h/a/diff,upperdir=/h/i/diff,workdir=/h/i/work"
    )


def test_base_layer_stands_on_its_empty_directory() -> None:
    assert spec().lowers == ("/h/i/empty",)
    assert spec(read_only=True).lowers == ("/h/i/diff", "/h/i/empty")


@pytest.mark.parametrize("options", [["ro"], []])
def test_read_only_has_no_upper(options: list[str]) -> None:
    found = spec(["/h/a/diff"], options, read_only=not options)
    assert (found.upper, found.work, found.lowers) == ("", "", ("/h/i/diff", "/h/a/diff"))
    assert found.flags == mounts.MS_RDONLY
    assert option_string(found) == "lowerdir=/h/i/diff:/h/a/diff"


def test_flags_are_told_from_options() -> None:
    found = spec(options=["nodev", "noatime", "metacopy=on", "nosuid", "suid", 'context="a,b"'])
    assert found.flags == mounts.MS_NODEV | mounts.MS_NOATIME
    assert found.options == ("metacopy=on", 'context="a,b"')
    assert option_string(found).endswith(',metacopy=on,context="a,b"')


def test_special_characters_are_escaped() -> None:
    found = MountSpec(target="/t", lowers=("/a:b", "/c,d"), upper="/e\\f:g", work="/w")
    assert option_string(found) == r"lowerdir=/a\:b:/c\,d,upperdir=/e\\f:g,workdir=/w"


def test_most_lowers() -> None:
    lowers = [f"/h/{number}/diff" for number in range(MOST_LOWERS)]
    assert len(spec(lowers).lowers) == MOST_LOWERS
    for many, read_only in (([*lowers, "/more"], False), (lowers, True)):
        with pytest.raises(DriverError, match="501 layers, and the kernel stacks 500 at most"):
            spec(many, read_only=read_only)
