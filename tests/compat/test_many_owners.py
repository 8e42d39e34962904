"""An image of 20,000 files of several owners, some with two names, used by containers with four different maps.

Who owns each file is asked of the kernel, through the mount of each container: once shown by idmapped mounts, once by
copies, whose cost `plan` tells beforehand.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerhold
from layerhold.ids.mappings import IdMappings, IdRange
from tests import stores

pytestmark = [pytest.mark.compat, pytest.mark.root]

FILES = 20_000
OWNERS = ((0, 0), (1, 1), (33, 33), (1000, 100), (65534, 65534))
Owners = dict[str, tuple[int, int]]


def maps(first: int, *, split: bool = False) -> IdMappings:
    """Give 65,536 IDs from `first` on; `split`: in two pieces, and other ones for groups."""
    if not split:
        return IdMappings(uids=span(0, first, 65536), gids=span(0, first, 65536))
    uids = span(0, first, 500) + span(500, first + 100_000, 65036)
    return IdMappings(uids=uids, gids=span(0, first + 300_000, 65536))


def span(container: int, host: int, size: int) -> tuple[IdRange, ...]:
    return (IdRange(container=container, host=host, size=size),)


FOUR = (maps(100_000), maps(200_000), maps(1_000_000, split=True), maps(2_000_000_000))


@pytest.fixture(scope="module")
def image_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(FILES):
            directory, owner = f"d{number // 200}", OWNERS[number % len(OWNERS)]
            if number % 200 == 0:
                add(archive, directory, tarfile.DIRTYPE, owner)
            name = f"{directory}/f{number}"
            if number % 10 == 9:
                add(archive, name, tarfile.LNKTYPE, OWNERS[(number - 1) % len(OWNERS)], f"{directory}/f{number - 1}")
            elif number % 10 == 5:
                add(archive, name, tarfile.SYMTYPE, owner, "f0")
            else:
                add(archive, name, tarfile.REGTYPE, owner)
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, kind: bytes, owner: tuple[int, int], target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, (info.uid, info.gid), info.linkname = kind, owner, target
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o4644
    info.size = 10 if kind == tarfile.REGTYPE else 0
    archive.addfile(info, io.BytesIO(b"0123456789") if info.size else None)


def owners(root: Path) -> Owners:
    found = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            found[os.path.relpath(path, root)] = (info.st_uid, info.st_gid)
    return found


@pytest.fixture(params=["overlay", "overlay-copied", "vfs"])
def store(request: pytest.FixtureRequest, image_tar: bytes) -> Iterator[layerhold.Store]:
    driver, _, copied = request.param.partition("-")
    with stores.scratch("owners") as folder:
        config = layerhold.Config.load(graphroot=folder / "root", runroot=folder / "run", driver=driver)
        store = layerhold.Store.open(config.replace(idmapped_mounts=not copied))
        base = store.layers.create(diff=io.BytesIO(image_tar), names=["base"])
        store.images.create(layer=base, names=["image"])
        yield store


def test_each_container_sees_its_own_owners(store: layerhold.Store) -> None:
    at_mount = store.driver.maps_at_mount()
    with store.layers["base"].mount() as root:
        plain = owners(root)
    assert len(plain) == FILES + FILES // 200
    for mappings in FOUR:
        plan = store.containers.plan(image="image", mappings=mappings)
        began = time.monotonic()
        container = store.containers.create(image="image", mappings=mappings)
        with store.mount(container.id) as root:
            took = time.monotonic() - began
            assert owners(root) == {name: mappings.to_host(*owner) for name, owner in plain.items()}
            assert (root / "d0/f8").samefile(root / "d0/f9")
            assert (root / "d0/f0").stat().st_mode & 0o7777 == 0o4644
        if at_mount:
            assert (plan.way, plan.files, plan.bytes) == ("at mount", 0, 0)
            assert took < 1
        else:
            assert plan.way == "copy"
            assert plan.files == FILES - FILES // 10 + FILES // 200
            assert plan.bytes == 10 * (FILES - FILES // 5)
        assert store.containers.plan(image="image", mappings=mappings).way == ("at mount" if at_mount else "kept copy")
    assert len(store.images["image"].record.mapped_layers) == (0 if at_mount else len(FOUR))
    for container in store.containers:
        container.delete()
    store.images["image"].delete()
    assert len(store.layers) == 0


def test_go_sees_the_same_owners(store: layerhold.Store) -> None:
    """What ours made is mounted by Go's program, and the reverse."""
    place = stores.Place(Path(store.config.graphroot).parent, store.driver.name)
    mappings = FOUR[0]
    ours = store.containers.create(image="image", mappings=mappings, names=["ours"])
    with pytest.MonkeyPatch.context() as patch:
        if not store.config.idmapped_mounts:
            patch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
        place.go("create-container", "-n", "gos", "--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "image")
        with place.mounted("ours", go=True) as root:
            theirs = owners(root)
    with store.mount(ours.id) as root:
        assert owners(root) == theirs
    with store.mount("gos") as root:
        assert owners(root) == theirs
