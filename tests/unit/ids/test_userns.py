"""Automatic user namespaces: most expectations are what podman 5.8 chose."""

from __future__ import annotations

import pytest

from layerhold.errors import InvalidMappings, NoAvailableIDs, StorageError
from layerhold.ids.mappings import IdMappings
from layerhold.ids.options import parse_ranges
from layerhold.ids.userns import choose, size_needed, size_to_choose


def maps(uids: str, gids: str | None = None) -> IdMappings:
    return IdMappings(
        uids=parse_ranges(uids.split(), "uid"), gids=parse_ranges((uids if gids is None else gids).split(), "gid")
    )


AVAILABLE = maps("0:100000:10000", "0:200000:10000")


def chosen(
    size: int, *used: IdMappings, additional: IdMappings | None = None, available: IdMappings = AVAILABLE
) -> str:
    found = choose(available, used, size, additional=additional)
    return f"{' '.join(map(str, found.uids))} | {' '.join(map(str, found.gids))}"


@pytest.mark.parametrize(
    ("passwd", "group", "owners", "size"),
    [
        ("", "", [], 0),
        ("root:x:0:0::/:\na:x:3000:4000::/:\n", "g:x:2000:\n", [], 4001),
        ("root:x:0:0::/:\n", "g:x:5000:\n", [7000, 10], 7001),
        ("root:x:0:0::/:\nnobody:x:65534:65534::/:\n", "nogroup:x:65534:\n", [], 1),
        ("nobody:x:3333:3334::/:\n nogroup:x:3000:1:\n", "nobody:x:2:\nnogroup:x:2:", [], 0),
        ("x:x:65534:3000\n", "", [], 3001),
        ("x:x:5:65534", "", [65534], 65535),
        ("x:x:65535:5", "", [], 65536),
        ("junk\ny:x:abc:3000\n:x:2000:5\nx:x:2100", "x:x\ny:x:2200", [], 3001),
        ("#x:x:3000:7", "  #y:x:4000:", [], 3001),
        ("x:x:+2000:7\nx:x:-5:-7\nx:x:99999999999:1\nx:x:4294967294:1\nx:x: 3000 :1\nx:x:0x999:1\n", "", [], 2001),
        ("x:x:2000:2001", "", [], 2002),
        ("x:x:02000:7\r\n", "x:x:" + "9" * 5000, [], 2001),
    ],
)
def test_what_an_image_needs(passwd: str, group: str, owners: list[int], size: int) -> None:
    assert size_needed(passwd.encode(), group.encode(), owners) == size


def test_which_size() -> None:
    assert size_to_choose(0) == size_to_choose(1024) == 1024
    assert size_to_choose(1025) == 1025
    assert size_to_choose(5, at_least=5000) == 5000
    assert size_to_choose(90000, requested=10) == 10
    assert size_to_choose(0, requested=70000) == 70000
    assert size_to_choose(70001, largest=0) == 70001
    with pytest.raises(StorageError) as caught:
        size_to_choose(70001)
    start = "the container needs a user namespace with size 70001 that is bigger than the maximum value allowed with"
    assert str(caught.value) == f"{start} userns=auto 65536"


def test_the_lowest_that_are_free() -> None:
    assert chosen(1024) == "0:100000:1024 | 0:200000:1024"
    first = maps("0:100000:1024", "0:200000:1024")
    assert chosen(500, first) == "0:101024:500 | 0:201024:500"
    assert chosen(200, maps("0:100050:100", "0:300000:100"), maps("0:50:100")) == (
        "0:100000:50 50:100150:150 | 0:200000:200"
    )


def test_pieces() -> None:
    available = maps("0:100000:500 500:200000:1000 1500:300000:1000")
    assert chosen(1024, available=available) == "0:100000:500 500:200000:524 | 0:100000:500 500:200000:524"
    taken = maps("0:100000:500 500:200000:624")
    assert chosen(500, taken, available=available).startswith("0:200624:376 376:300000:124 |")


@pytest.mark.parametrize(
    ("size", "available"),
    [(10001, AVAILABLE), (1024, maps("0:100000:5000", "0:200000:500")), (1, IdMappings()), (1, maps("0:1:1", ""))],
)
def test_not_enough(size: int, available: IdMappings) -> None:
    with pytest.raises(NoAvailableIDs, match=r"^not enough unused IDs in user namespace$") as caught:
        chosen(size, available=available)
    assert f"{size} " in caught.value.hint


def test_containers_of_the_host_use_nothing() -> None:
    assert chosen(10000, IdMappings()) == "0:100000:10000 | 0:200000:10000"


@pytest.mark.parametrize(
    ("size", "additional", "uids"),
    [
        (100, "0:5000:1", "1:100000:99 0:5000:1"),
        (100, "0:100000:1", "1:100001:99 0:100000:1"),
        (100, "50:100050:1", "0:100000:50 51:100051:49 50:100050:1"),
        (100, "200:5000:10", "0:100000:100 200:5000:10"),
        (100, "10:5000:10 50:6000:5", "0:100000:10 20:100010:30 55:100040:45 10:5000:10 50:6000:5"),
        (1, "0:5000:1", "0:5000:1"),
        (10, "5:5000:10", "0:100000:5 5:5000:10"),
        (10000, "5:5000:10", "0:100000:5 15:100005:9985 5:5000:10"),
    ],
)
def test_maps_that_are_asked_for(size: int, additional: str, uids: str) -> None:
    assert chosen(size, additional=maps(additional, "")) == f"{uids} | 0:200000:{size}"


def test_what_is_asked_for_may_belong_to_another() -> None:
    other = maps("0:100000:50 60:100050:40 50:100500:10", "0:200000:100")
    assert chosen(100, other, additional=maps("50:100500:10", "")) == (
        "0:100090:50 60:100140:40 50:100500:10 | 0:200100:100"
    )


@pytest.mark.parametrize(("second", "named"), [("15:6000:5", "15:6000:5"), ("30:5005:5", "30:5005:5")])
def test_maps_in_conflict(second: str, named: str) -> None:
    both = IdMappings(uids=parse_ranges(["10:5000:10"], "uid") + parse_ranges([second], "uid"))
    with pytest.raises(InvalidMappings) as caught:
        chosen(100, additional=both)
    assert str(caught.value) == (
        f"the specified UID and/or GID mapping {named} conflicts with other mappings: invalid mappings specified"
    )


def test_a_namespace_of_nothing() -> None:
    with pytest.raises(InvalidMappings):
        chosen(0)
