from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as some

from layerhold.cli.flags import Flag, FlagError, Given, HelpWanted, parse, parse_anywhere

FLAGS = (
    Flag(names=("json", "j"), help="", yes_or_no=True),
    Flag(names=("quiet", "q"), help="", yes_or_no=True),
    Flag(names=("graph", "g"), help=""),
    Flag(names=("name", "n"), help="", repeated=True),
)


def parsed(*words: str) -> tuple[Given, list[str]]:
    given = Given()
    return given, parse(words, FLAGS, given)


def complaints(*words: str) -> tuple[str, ...]:
    with pytest.raises(FlagError) as caught:
        parsed(*words)
    return caught.value.complaints


@pytest.mark.parametrize(
    "words", [("--graph", "x"), ("--graph=x",), ("-g", "x"), ("-g=x",), ('--graph="x"',), ("-g='x'",)]
)
def test_the_ways_to_give_a_value(words: tuple[str, ...]) -> None:
    assert parsed(*words)[0].get("graph") == "x"


@pytest.mark.parametrize(
    ("word", "value"), [("--graph=", ""), ('--graph="x', '"x'), ("--graph=a=b", "a=b"), ('-g="', '"')]
)
def test_odd_values(word: str, value: str) -> None:
    assert parsed(word)[0].get("graph") == value


@pytest.mark.parametrize("word", ["--json", "-j", "--json=1", "--json=T", "-j=true", "-qj", "-jq", "-jq=false"])
def test_yes(word: str) -> None:
    assert parsed(word)[0].yes("json")


@pytest.mark.parametrize("word", ["--json=0", "--json=False", "-j=f", "--quiet"])
def test_no(word: str) -> None:
    assert not parsed(word)[0].yes("json")


def test_the_last_value_counts_unless_all_do() -> None:
    given, _ = parsed("-g", "a", "-n", "a", "--name=b", "-g", "b")
    assert given.get("graph") == "b"
    assert given.all("name") == ["a", "b"]


def test_flags_end_at_the_first_word_and_at_two_dashes() -> None:
    assert parsed("-j", "word", "-q")[1] == ["word", "-q"]
    assert parsed("-j", "--", "-q")[1] == ["-q"]
    assert parsed("-j", "-", "-q")[1] == ["-", "-q"]
    assert parsed("")[1] == [""]


def test_a_value_may_look_like_a_flag() -> None:
    assert parsed("--graph", "--json")[0].get("graph") == "--json"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--nothing",), ("flag provided but not defined: --nothing",)),
        (("---json",), ("flag provided but not defined: ---json",)),
        (("-x",), ("flag provided but not defined: -x",)),
        (("-jx",), ("flag provided but not defined: -jx",)),
        (("-json",), ("flag provided but not defined: -json",)),
        (("-=x",), ("bad flag syntax: -=x",)),
        (("--graph",), ("flag needs an argument: --graph",)),
        (("-gX",), ("flag needs an argument: -g", "flag provided but not defined: -gX")),
        (
            ("-j=no",),
            ('invalid boolean value "no" for  -j: strconv.ParseBool: parsing "no": invalid syntax',),
        ),
    ],
)
def test_complaints(words: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert complaints(*words) == expected


@pytest.mark.parametrize("word", ["-h", "--help", "-help", "-jh"])
def test_help(word: str) -> None:
    with pytest.raises(HelpWanted):
        parsed(word)


def test_defaults_stay_as_they_were() -> None:
    defaults = {"name": ["a"]}
    given = Given(defaults)
    parse(["-n", "b"], FLAGS, given)
    assert given.all("name") == ["a", "b"]
    assert defaults == {"name": ["a"]}


@settings(max_examples=300)
@for_all(some.lists(some.text(alphabet="-=jqgn x'\"", max_size=6), max_size=6))
def test_any_words_are_taken_or_refused(words: list[str]) -> None:
    try:
        rest = parsed(*words)[1]
    except (FlagError, HelpWanted):
        return
    assert rest == words[len(words) - len(rest) :]


def test_flags_anywhere() -> None:
    given = Given()
    words = ["one", "-n", "a", "two", "--name=b", "-", "--", "-n", "three"]
    assert parse_anywhere(words, FLAGS, given) == ["one", "two", "-", "-n", "three"]
    assert given.all("name") == ["a", "b"]
    assert parse_anywhere(["--"], FLAGS, given) == []
    assert parse_anywhere([], FLAGS, given) == []
    with pytest.raises(FlagError, match="not defined: --nope"):
        parse_anywhere(["one", "--nope"], FLAGS, given)
