"""ID maps go there and back, and no text makes their reader fail in another way than by saying that it is malformed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerhold.errors import InvalidMappings, NoAvailableIDs, NoSubIds, StorageError
from layerhold.ids.mappings import END, IdMappings, IdRange, refuse_unusable
from layerhold.ids.options import parse_ranges
from layerhold.ids.subids import parse_subids
from layerhold.ids.userns import choose, size_needed

NUMBER = st.integers(0, 30) | st.integers(END - 30, END + 1)
RANGE = st.builds(IdRange, container=NUMBER, host=NUMBER, size=st.integers(0, 8) | st.just(END))
RANGES = st.lists(RANGE, max_size=5).map(tuple)
TEXT = st.text(max_size=20) | st.text("0123456789:", max_size=20)


def usable(ranges: Sequence[IdRange]) -> bool:
    with suppress(InvalidMappings):
        refuse_unusable(ranges, "uid map")
        return True
    return False


@given(RANGES)
def test_usable_means_one_partner_for_each_id(ranges: tuple[IdRange, ...]) -> None:
    for side in ("container", "host"):
        ids = [getattr(span, side) + step for span in ranges for step in range(min(span.size, 10))]
        distinct = len(set(ids)) == len(ids) and all(0 <= id < END for id in ids)
        assert distinct or not usable(ranges)


@given(RANGES.filter(usable), st.integers(0, 40))
def test_there_and_back(ranges: tuple[IdRange, ...], id: int) -> None:
    maps = IdMappings(uids=ranges, gids=ranges)
    try:
        outside = maps.to_host(id, id)
    except StorageError:
        assert not any(span.container <= id < span.container + span.size for span in ranges)
    else:
        assert maps.to_container(*outside) == (id, id)
        assert not ranges or maps.outside(outside, outside) == ((), ())


@given(RANGES)
def test_ranges_are_read_as_they_are_written(ranges: tuple[IdRange, ...]) -> None:
    texts = [str(span) for span in ranges]
    if usable(ranges):
        assert parse_ranges(texts, "uid") == parse_ranges([":".join(texts)], "uid") == ranges
    else:
        with pytest.raises(InvalidMappings):
            parse_ranges(texts, "uid")


@given(st.lists(TEXT, max_size=3))
def test_any_text_is_maps_or_invalid(texts: list[str]) -> None:
    with suppress(InvalidMappings):
        assert usable(parse_ranges(texts, "uid"))


@given(st.lists(st.tuples(st.sampled_from(["ann", "ALL", "1"]), TEXT, TEXT).map(":".join), max_size=4).map("\n".join))
def test_any_file_is_ranges_or_an_error(text: str) -> None:
    with suppress(NoSubIds):
        found = parse_subids(text, ["ann"], "/etc/subuid")
        assert found == sorted(found)


def host_ids(maps: Iterable[IdRange]) -> list[int]:
    return [span.host + step for span in maps for step in range(span.size)]


FEW = st.lists(
    st.builds(IdRange, container=st.integers(0, 40), host=st.integers(0, 40), size=st.integers(1, 15)), max_size=4
).map(tuple)


@given(available=FEW, used=st.lists(FEW, max_size=3), size=st.integers(1, 40), fixed=FEW.filter(usable))
def test_chosen_ids_are_free_and_enough(
    available: tuple[IdRange, ...], used: list[tuple[IdRange, ...]], size: int, fixed: tuple[IdRange, ...]
) -> None:
    taken = {id for maps in used for id in host_ids(maps)} | set(host_ids(fixed))
    free = set(host_ids(available)) - taken
    wanted = set(range(size)) - {span.container + step for span in fixed for step in range(span.size)}
    sides = [IdMappings(uids=ranges, gids=ranges) for ranges in (available, *used, fixed)]
    if len(wanted) > len(free):
        with pytest.raises(NoAvailableIDs):
            choose(sides[0], sides[1:-1], size, additional=sides[-1])
        return
    found = choose(sides[0], sides[1:-1], size, additional=sides[-1])
    assert found.uids == found.gids
    assert usable(found.uids)
    made = found.uids[: len(found.uids) - len(fixed)]
    assert found.uids[len(made) :] == fixed
    assert host_ids(made) == sorted(free)[: len(wanted)]
    assert {span.container + step for span in made for step in range(span.size)} == wanted


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_file_of_users_needs_some_size(passwd: bytes, group: bytes) -> None:
    assert 0 <= size_needed(passwd, group, []) <= 2**31
