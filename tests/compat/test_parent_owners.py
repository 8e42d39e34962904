"""Owners of the directories above mounts of containers that have ID maps, as both programs find them."""

from __future__ import annotations

import os

import pytest

from tests import stores

pytestmark = [pytest.mark.compat, pytest.mark.root]

MAPS = ["--uidmap", "0:1000:1000", "--gidmap", "0:2000:1000"]


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_owners_outside_the_maps(driver: str) -> None:
    with stores.scratch("owners") as folder:
        place = stores.Place(folder, driver)
        place.go("create-layer", "-i", "base")
        place.go("create-image", "-i", "image", "base")
        place.go("create-container", "-i", "box", *MAPS, "image")
        asked = [["container-parent-owners", "box"], ["container-parent-owners", "-j", "box"]]
        for words in asked:
            assert same(place, words).returncode == 1  # not mounted
        place.go("mount", "box")
        os.chown(folder, 77, 2001)
        os.chown(place.root, 1001, 99)
        for words in asked:
            assert "0" in same(place, words).stdout
        assert place.ours("container-parent-owners", "box").stdout.startswith("ID: box\nUIDs: [0 77")


def same(place: stores.Place, words: list[str]) -> stores.Answer:
    ours, go = place.ours(*words, check=False), place.go(*words, check=False)
    assert (ours.returncode, ours.stdout, ours.stderr) == (go.returncode, go.stdout, go.stderr)
    return ours
