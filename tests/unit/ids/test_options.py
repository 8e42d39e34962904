"""ID maps as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerhold.errors import InvalidMappings, NoSubIds
from layerhold.ids.options import parse_mappings, parse_ranges


def read(*texts: str) -> str:
    return " ".join(map(str, parse_ranges(texts, "uid")))


def test_ranges_of_one_text_and_of_several() -> None:
    assert read("0:1000:10") == "0:1000:10"
    assert read("0:1000:10:20:3000:5", "", "0040:07:1") == "0:1000:10 20:3000:5 40:7:1"
    assert read() == read("") == ""


MALFORMED = [
    *("0:1000", "abc", "0 1000 10", "0:1000:10:", ":0:1000:10:", "-0:1000:10", "0::1000:10", "0:1000:10,20:3000:5"),
    *("4294967296:1000:10", "0:1000:4294967296", "0:1000:" + "9" * 23, "0x1000y10", "0:+1000:10", "0:1000:0x10"),
    *("0:1_000:10", "0:1000:10:20", " 0:1000:10", 'x"y\\z\n', "#0:1000:10", "0:\u0661:10", "0:1:" + "9" * 5000),
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_in_the_words_of_go(text: str) -> None:
    with pytest.raises(InvalidMappings) as caught:
        parse_ranges([text], "gid")
    start = 'initializing ID mappings: gid setting is malformed expected ["uint32:uint32:uint32"]: ["'
    assert str(caught.value).startswith(start)


def test_the_error_quotes_all_texts() -> None:
    with pytest.raises(InvalidMappings) as caught:
        parse_ranges(["0:1:2", 'x"y\n'], "uid")
    assert str(caught.value).endswith(': ["0:1:2" "x\\"y\\n"]')


@pytest.mark.parametrize("text", ["0:1000:0", "0:1000:10:5:5000:10", "0:1000:10:20:1005:10", "0:4294967295:1"])
def test_maps_that_no_kernel_takes(text: str) -> None:
    with pytest.raises(InvalidMappings, match=r"uid map .*: invalid mappings specified$"):
        parse_ranges([text], "uid")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name, text in (("u", "ann:100000:10\nbob:300000:9\n"), ("g", "ann:200000:20\nbob:400000:9\n")):
        (tmp_path / name).write_text(text)
    return str(tmp_path / "u"), str(tmp_path / "g")


def both(files: tuple[str, str], *given: str, mirror: bool = True, user: tuple[int, int] | None = None) -> str:
    uid, gid, name, group = (*given, "", "", "", "")[:4]
    maps = parse_mappings(
        [uid] if uid else [], [gid] if gid else [], name, group, mirror=mirror, user=user, files=files
    )
    return f"{'+'.join(map(str, maps.uids))} {'+'.join(map(str, maps.gids))}" if maps else "none"


def test_what_is_not_given_is_the_other(files: tuple[str, str]) -> None:
    assert both(files, "0:1:2") == both(files, "", "0:1:2") == "0:1:2 0:1:2"
    assert both(files, "0:1:2", "0:3:4") == "0:1:2 0:3:4"
    assert both(files, "", "", "ann") == both(files, "", "", "", "ann") == "0:100000:10 0:200000:20"
    assert both(files, "", "", "ann", "bob") == "0:100000:10 0:400000:9"


def test_flags_of_the_command_stand_each_for_itself(files: tuple[str, str]) -> None:
    assert both(files, "0:1:2", mirror=False) == "0:1:2 "
    assert both(files, "", "0:1:2", mirror=False) == " 0:1:2"
    assert both(files, "", "", "ann", mirror=False) == "0:100000:10 0:200000:20"


def test_written_maps_come_after_those_of_a_name(files: tuple[str, str]) -> None:
    assert both(files, "10:4000:10", "", "ann", mirror=False) == "0:100000:10+10:4000:10 0:200000:20"
    with pytest.raises(InvalidMappings, match="overlap"):
        both(files, "0:4000:10", "", "ann", mirror=False)


def test_an_ordinary_user_without_maps_is_root_inside(files: tuple[str, str]) -> None:
    assert both(files) == "none"
    assert both(files, user=(1000, 100)) == "0:1000:1 0:100:1"
    assert both(files, "0:1:2", user=(1000, 100)) == "0:1:2 0:1:2"
    assert both(files, "", "", "ann", user=(1000, 100)) == "0:100000:10 0:200000:20"


def test_a_name_is_looked_up_before_maps_are_read(files: tuple[str, str]) -> None:
    with pytest.raises(NoSubIds):
        both(files, "x", "", "ghost")
