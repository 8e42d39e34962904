"""ID mappings."""

from __future__ import annotations

import pytest

from layerhold.errors import StorageError
from layerhold.ids.mappings import IdMappings, IdRange

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
    with pytest.raises(StorageError, match="Container ID 10 cannot be mapped to a host ID"):
        MAPS.to_host(10, 0)
    with pytest.raises(StorageError, match="Host ID 5 cannot be mapped to a container ID"):
        MAPS.to_container(7, 5)
    with pytest.raises(StorageError, match="Container ID 0 cannot be mapped"):
        IdMappings(uids=(IdRange(container=1, host=1, size=1),)).root()
