"""Files of subordinate IDs, with the answers that Go's program was seen to give to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerhold.errors import InvalidMappings, NoSubIds
from layerhold.ids.subids import parse_subids, subgids_of, subuids_of


def written(folder: Path, text: str) -> str:
    path = folder / "subids"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return str(path)


def spans(text: str, *names: str) -> list[tuple[int, int]]:
    return parse_subids(text, names, "F")


def test_ranges_are_sorted_and_follow_each_other_inside(tmp_path: Path) -> None:
    path = written(tmp_path, "ann:200000:10\nbob:1:1\n# ann:1:1\n\n  ann:100000:5 \t\n")
    assert [str(span) for span in subuids_of("ann", path)] == ["0:100000:5", "5:200000:10"]
    assert subgids_of("ann", path) == subuids_of("ann", path)


def test_a_user_is_found_by_his_number_too(tmp_path: Path) -> None:
    path = written(tmp_path, "root:1:2\n0:77:3\n")
    assert [str(span) for span in subuids_of("root", path)] == ["0:1:2", "2:77:3"]
    assert [str(span) for span in subuids_of("0", path)] == ["0:77:3"]


def test_all_are_asked_for_by_name_only() -> None:
    text = "ann:1:2\nALL:5:6\n"
    assert spans(text, "ALL") == [(1, 2), (5, 6)]
    assert spans(text, "bob") == []


@pytest.mark.parametrize("line", ["ann:1", "ann", "ann:1:2:", "other:1"])
def test_any_line_of_another_form_is_an_error(line: str) -> None:
    with pytest.raises(NoSubIds, match=r"^cannot parse subuid/gid information: Format not correct for F file$"):
        spans(f"ann:5:5\n{line}\n", "ann")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("x", '"x": invalid syntax'),
        ("", '"": invalid syntax'),
        ("1_0", '"1_0": invalid syntax'),
        ("5 # x", '"5 # x": invalid syntax'),
        ("\udcff", '"\\xff": invalid syntax'),
        ("9" * 20, f'"{"9" * 20}": value out of range'),
        ("9" * 5000, f'"{"9" * 5000}": value out of range'),
    ],
)
def test_what_is_no_number_is_said_in_the_words_of_go(number: str, said: str) -> None:
    with pytest.raises(NoSubIds) as caught:
        spans(f"ann:1:{number}", "ann")
    start = "string to int conversion failed during subuid/gid parsing of F: strconv.Atoi: parsing"
    assert str(caught.value) == f"{start} {said}"
    assert spans(f"ann:1:{number}", "bob") == []


def test_a_sign_is_no_error() -> None:
    assert spans("ann:+5:005", "ann") == [(5, 5)]


def test_nothing_for_a_name_says_whose_and_where(tmp_path: Path) -> None:
    path = written(tmp_path, "ann:1:1\n")
    with pytest.raises(NoSubIds) as caught:
        subuids_of('b "', path)
    assert str(caught.value) == f'no subuid ranges found for user "b \\"" in {path}'
    assert "100000:65536" in caught.value.hint
    with pytest.raises(NoSubIds, match=r'^no subgid ranges found for group "bob" in '):
        subgids_of("bob", path)
    with pytest.raises(NoSubIds):
        subuids_of("a\0b", path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        subuids_of("ann", str(tmp_path / "missing"))


@pytest.mark.parametrize(
    "lines", ["ann:-5:10", "ann:5:0", "ann:5:-1", "ann:4294967295:1", "ann:1:99999999999", "ann:5:10\nann:14:1"]
)
def test_ranges_that_the_kernel_would_refuse(tmp_path: Path, lines: str) -> None:
    with pytest.raises(InvalidMappings, match="subids"):
        subuids_of("ann", written(tmp_path, lines))
