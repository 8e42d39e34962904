"""ID mappings."""

from __future__ import annotations

import pytest

from layerhold.errors import InvalidMappings, StorageError
from layerhold.ids.mappings import END, IdMappings, IdRange, refuse_unusable

MAPS = IdMappings(
    uids=(IdRange(container=0, host=100000, size=10), IdRange(container=50, host=7, size=1)),
    gids=(IdRange(container=0, host=200000, size=5),),
)


def test_both_ways() -> None:
    assert MAPS.to_host(9, 4) == (100009, 200004)
    assert MAPS.to_host(50, 0) == (7, 200000)
    assert MAPS.to_container(7, 200004) == (50, 4)
    assert MAPS.root() == (100000, 200000)
    assert not MAPS.identity


def test_nothing_is_the_identity() -> None:
    assert IdMappings().identity
    assert IdMappings().to_host(3, 4) == IdMappings().to_container(3, 4) == (3, 4)
    assert IdMappings(uids=MAPS.uids).to_host(0, 77) == (100000, 77)


def test_unmapped_is_an_error_in_the_words_of_go() -> None:
    with pytest.raises(StorageError, match="container ID 10 cannot be mapped to a host ID"):
        MAPS.to_host(10, 0)
    with pytest.raises(StorageError, match="host ID 5 cannot be mapped to a container ID"):
        MAPS.to_container(7, 5)
    with pytest.raises(StorageError, match="container ID 0 cannot be mapped"):
        IdMappings(uids=(IdRange(container=1, host=1, size=1),)).root()


def test_who_is_outside() -> None:
    assert MAPS.outside([0, 7, 100009, 100010, 0], [200000, 3]) == ((0, 100010), (3,))
    assert IdMappings(gids=MAPS.gids).outside([5], [5]) == ((), (5,))


def test_lines_for_the_kernel() -> None:
    assert MAPS.lines() == ("0 100000 10\n50 7 1\n", "0 200000 5\n")
    assert IdMappings().lines()[0] == f"0 0 {END}\n"


def ranges(text: str) -> list[IdRange]:
    numbers = [[int(number) for number in part.split(":")] for part in text.split()]
    return [IdRange(container=inside, host=outside, size=size) for inside, outside, size in numbers]


@pytest.mark.parametrize("usable", ["", "0:1000:10 10:1010:10", "10:0:5 0:5:5", f"0:0:{END}", f"{END - 1}:{END - 1}:1"])
def test_usable_ranges(usable: str) -> None:
    refuse_unusable(ranges(usable), "UIDs")


@pytest.mark.parametrize(
    ("unusable", "said"),
    [
        ("0:1000:0", "UIDs 0:1000:0: it has no IDs: invalid mappings specified"),
        ("0:1:-1", "UIDs 0:1:-1: it has no IDs"),
        ("0:-1:5", "UIDs 0:-1:5: IDs are numbers from 0 to 4294967294"),
        (f"0:1:{END}", "IDs are numbers"),
        (f"{END}:0:1", "IDs are numbers"),
        ("5:100:10 0:500:6", "UIDs 0:500:6 and 5:100:10: they overlap on the side of the container"),
        ("0:1005:5 20:1000:6", "UIDs 20:1000:6 and 0:1005:5: they overlap on the side of the host"),
        ("0:1:5 0:1:5", "UIDs 0:1:5 and 0:1:5: they overlap"),
    ],
)
def test_unusable_ranges(unusable: str, said: str) -> None:
    with pytest.raises(InvalidMappings) as caught:
        refuse_unusable(ranges(unusable), "UIDs")
    assert said in str(caught.value)
