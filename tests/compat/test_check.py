"""`check` and `check -r` on damaged twin stores: ours and Go's print the same lines, and leave the same records.

One store for each driver is made by Go; a copy is damaged, and copied once more for each program. IDs come in any order
in Go, so lines are compared as sets, those of each item for itself.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import layerhold
from tests import inputs, stores
from tests.compat.test_commands import tar

pytestmark = [pytest.mark.compat, pytest.mark.root]

BASE, TOP, LOOSE = (digit * 64 for digit in "123")
IMAGE, BOX = (digit * 64 for digit in "ad")

BASE_TAR = tar(
    ("etc", None, 0o755),
    ("etc/conf", b"hello world\n" * 900, 0o644),
    ("etc/gone", b"x", 0o600),
    ("bin", None, 0o755),
    ("bin/sh", b"\x7fELF" + bytes(5000), 0o4755),
    ("bin/ash", "sh", 0o777),
    ("var", None, 0o755),
    ("var/spool", None, 0o755),
    ("var/spool/job", b"", 0o644),
)
TOP_TAR = tar(("etc", None, 0o755), ("etc/new", b"new\n", 0o644), ("etc/.wh.gone", b"", 0o644))


def tree(place: stores.Place, id: str) -> Path:
    """The files of a layer."""
    return place.root / place.driver / id / "diff" if place.driver == "overlay" else place.root / "vfs/dir" / id


def change_records(place: stores.Place, kind: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    file = place.root / f"{place.driver}-{kind}" / f"{kind}.json"
    records = json.loads(file.read_bytes())
    change(records)
    file.write_text(json.dumps(records))


def without(place: stores.Place, kind: str, id: str) -> None:
    change_records(
        place, kind, lambda records: records.remove(next(record for record in records if record["id"] == id))
    )


def same_times(path: Path, work: Callable[[Path], object]) -> None:
    """Do some work on a file, and give it back its times."""
    before = path.stat()
    work(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# -- damage

DAMAGE: dict[str, Callable[[stores.Place], object]] = {}


def damage(make: Callable[[stores.Place], object]) -> Callable[[stores.Place], object]:
    DAMAGE[make.__name__] = make
    return make


@damage
def nothing(place: stores.Place) -> None:
    pass


@damage
def stray_directory(place: stores.Place) -> None:
    (place.root / place.driver / ("dir" if place.driver == "vfs" else "") / "stray").mkdir()


@damage
def content_changed(place: stores.Place) -> None:
    same_times(tree(place, BASE) / "etc/conf", lambda path: path.write_bytes(path.read_bytes().swapcase()))


@damage
def file_shorter(place: stores.Place) -> None:
    os.truncate(tree(place, BASE) / "bin/sh", 100)


@damage
def file_removed(place: stores.Place) -> None:
    (tree(place, BASE) / "etc/conf").unlink()


@damage
def file_is_a_link(place: stores.Place) -> None:
    path = tree(place, BASE) / "bin/sh"
    path.unlink()
    path.symlink_to("ash")


@damage
def file_is_a_directory(place: stores.Place) -> None:
    path = tree(place, BASE) / "bin/sh"
    path.unlink()
    path.mkdir()


@damage
def time_changed(place: stores.Place) -> None:
    os.utime(tree(place, BASE) / "etc/conf", (1_795_503_555, 1_795_503_555))
    os.utime(tree(place, BASE) / "bin/ash", (5, 5), follow_symlinks=False)


@damage
def modes_changed(place: stores.Place) -> None:
    same_times(tree(place, BASE) / "bin/sh", lambda path: path.chmod(0o600))
    tree(place, BASE).joinpath("var").chmod(0o700)


@damage
def only_special_bits_changed(place: stores.Place) -> None:
    (tree(place, BASE) / "bin/sh").chmod(0o755)
    (tree(place, BASE) / "var").chmod(0o1755)
    tree(place, BASE).chmod(0o700)


@damage
def owner_changed(place: stores.Place) -> None:
    os.chown(tree(place, BASE) / "etc/conf", 5, 6)


@damage
def files_added(place: stores.Place) -> None:
    (tree(place, BASE) / "var/new").mkdir()
    (tree(place, BASE) / "var/new/file").touch()
    (tree(place, TOP) / "etc/added").touch()


@damage
def directory_removed(place: stores.Place) -> None:
    (tree(place, BASE) / "var/spool/job").unlink()
    (tree(place, BASE) / "var/spool").rmdir()


@damage
def other_kinds(place: stores.Place) -> None:
    link, spool = tree(place, BASE) / "bin/ash", tree(place, BASE) / "var/spool"
    link.unlink()
    os.mkfifo(link)
    shutil.rmtree(spool)
    spool.write_bytes(b"a file")


@damage
def upper_and_lower_changed(place: stores.Place) -> None:
    (tree(place, TOP) / "etc").chmod(0o711)
    (tree(place, BASE) / "etc").chmod(0o700)


@damage
def no_tar_split(place: stores.Place) -> None:
    (place.root / f"{place.driver}-layers/{BASE}.tar-split.gz").unlink()


@damage
def tar_split_cut(place: stores.Place) -> None:
    file = place.root / f"{place.driver}-layers/{BASE}.tar-split.gz"
    file.write_bytes(file.read_bytes()[:-150])


@damage
def tar_split_without_its_end(place: stores.Place) -> None:
    file = place.root / f"{place.driver}-layers/{BASE}.tar-split.gz"
    file.write_bytes(file.read_bytes()[:-5])


@damage
def tar_split_empty(place: stores.Place) -> None:
    (place.root / f"{place.driver}-layers/{BASE}.tar-split.gz").write_bytes(b"")


@damage
def wrong_digest(place: stores.Place) -> None:
    change_records(place, "layers", lambda records: records[0].update({"diff-digest": "sha256:" + "0" * 64}))


@damage
def wrong_size(place: stores.Place) -> None:
    change_records(place, "layers", lambda records: records[0].update({"diff-size": 5}))


@damage
def no_digest(place: stores.Place) -> None:
    change_records(place, "layers", lambda records: records[0].update({"diff-digest": "nonsense"}))


@damage
def lowest_directory_missing(place: stores.Place) -> None:
    shutil.rmtree(place.root / place.driver / ("dir" if place.driver == "vfs" else "") / BASE)


@damage
def top_directory_missing(place: stores.Place) -> None:
    shutil.rmtree(place.root / place.driver / ("dir" if place.driver == "vfs" else "") / TOP)


@damage
def image_record_missing(place: stores.Place) -> None:
    without(place, "images", IMAGE)


@damage
def container_layer_record_missing(place: stores.Place) -> None:
    change_records(place, "layers", lambda records: records.pop())


@damage
def image_data_missing(place: stores.Place) -> None:
    (place.root / f"{place.driver}-images/{IMAGE}/manifest").unlink()


@damage
def image_data_longer(place: stores.Place) -> None:
    (place.root / f"{place.driver}-images/{IMAGE}/manifest").write_bytes(b"longer")


@damage
def container_data_missing(place: stores.Place) -> None:
    (place.root / f"{place.driver}-containers/{BOX}/key").unlink()


@damage
def container_data_longer(place: stores.Place) -> None:
    (place.root / f"{place.driver}-containers/{BOX}/key").write_bytes(b"longer")


@damage
def layer_data_missing(place: stores.Place) -> None:
    (place.root / f"{place.driver}-layers/{BASE}/key").unlink()


@damage
def layer_unreferenced(place: stores.Place) -> None:
    place.go("create-layer", "-i", LOOSE)
    place.go("create-layer", LOOSE)
    change_records(
        place, "layers", lambda records: [record.update({"created": "2020-01-01T00:00:00Z"}) for record in records]
    )


# -- twins


@pytest.fixture(scope="module", params=["overlay", "vfs"])
def template(request: pytest.FixtureRequest) -> Iterator[stores.Place]:
    with stores.scratch("check") as folder:
        place = stores.Place(folder / "template", request.param)
        place.go("import-layer", "-i", BASE, "-n", "base", stdin=BASE_TAR)
        place.go("import-layer", "-i", TOP, BASE, stdin=TOP_TAR)
        place.go("create-image", "-i", IMAGE, "-n", "image", TOP)
        place.go("set-image-data", IMAGE, "manifest", stdin=b"{}")
        place.go("create-container", "-i", BOX, IMAGE)
        place.go("set-container-data", BOX, "key", stdin=b"data")
        place.go("set-layer-data", BASE, "key", stdin=b"data")
        place.go("shutdown")
        yield place


def copied(place: stores.Place, name: str) -> stores.Place:
    folder = place.folder.with_name(name)
    subprocess.run(["cp", "-a", str(place.folder), str(folder)], check=True)
    return stores.Place(folder, place.driver, place.options)


class Twins:
    """Two copies of a damaged store, ours and Go's."""

    def __init__(self, damaged: stores.Place) -> None:
        self.ours = copied(damaged, "ours")
        self.go = copied(damaged, "go")

    def differences(self, *words: str) -> list[str]:
        """Run a command on both; give what differs in what was printed, the status and the records."""
        mine, theirs = self.ours.ours(*words, check=False), self.go.go(*words, check=False)
        pairs = {
            "status": (mine.returncode, theirs.returncode),
            "stdout": (sections(mine.stdout, self.ours), sections(theirs.stdout, self.go)),
            "stderr": (complaints(mine.stderr), complaints(theirs.stderr)),
            "records": (records(self.ours), records(self.go)),
        }
        return [f"{words}: {what}\n ours: {a}\n Go:   {b}" for what, (a, b) in pairs.items() if a != b]


def sections(text: str, place: stores.Place) -> dict[str, list[str]]:
    """What was printed about each item, in one order."""
    found: dict[str, list[str]] = {}
    about = ""
    for line in text.replace(str(place.folder), "<store>").splitlines():
        if line.startswith(" "):
            found[about].append(line)
        else:
            about = line
            found[about] = []
    return {about: sorted(lines) for about, lines in found.items()}


def complaints(text: str) -> list[str]:
    """What was printed on standard error, but for what ours says before it removes something."""
    return sorted(line for line in text.splitlines() if not line.startswith("removing "))


def records(place: stores.Place) -> dict[str, list[str]]:
    found = {}
    for kind in ("layers", "images", "containers"):
        file = place.root / f"{place.driver}-{kind}/{kind}.json"
        found[kind] = sorted(record["id"] for record in json.loads(file.read_bytes()) or [])
    return found


@pytest.fixture
def twins(template: stores.Place) -> Iterator[Callable[[Callable[[stores.Place], object]], Twins]]:
    made: list[stores.Place] = []

    def make(work: Callable[[stores.Place], object]) -> Twins:
        damaged = copied(template, "damaged")
        made.append(damaged)
        work(damaged)
        damaged.go("shutdown", check=False)
        found = Twins(damaged)
        made.extend((found.ours, found.go))
        return found

    yield make
    for place in made:
        stores.clear(place.folder)


# -- tests


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_repaired_as_by_go(twins: Callable[..., Twins], name: str) -> None:
    pair = twins(DAMAGE[name])
    found = [line for flags in (("-r",), ("-f",), ()) for line in pair.differences("check", *flags)]
    assert not found, "\n".join(found)


def test_quick_and_json_are_as_gos(twins: Callable[..., Twins]) -> None:
    pair = twins(DAMAGE["upper_and_lower_changed"])
    for flags in (["-q"], ["-j"], ["-r", "-j"], ["-f", "-j"]):
        mine, theirs = pair.ours.ours("check", *flags, check=False), pair.go.go("check", *flags, check=False)
        assert [json.loads(line) for line in mine.stdout.splitlines()] == [
            json.loads(line) for line in theirs.stdout.splitlines()
        ]
        assert mine.returncode == theirs.returncode


def test_additional_stores_are_checked_and_left_alone() -> None:
    for driver in ("overlay", "vfs"):
        with stores.scratch("additional") as folder:
            below = stores.Place(folder / "below", driver)
            below.go("import-layer", "-i", BASE, stdin=BASE_TAR)
            below.go("create-image", "-i", IMAGE, BASE)
            below.go("set-image-data", IMAGE, "manifest", stdin=b"{}")
            below.go("shutdown")
            place = stores.Place(folder / "damaged", driver, [f"{driver}.imagestore={below.root}"])
            place.go("import-layer", "-i", TOP, BASE, stdin=TOP_TAR)
            place.go("create-image", "-i", "b" * 64, TOP)
            place.go("create-container", "-i", BOX, IMAGE)
            place.go("shutdown")
            modes_changed(below)
            pair = Twins(place)
            found = pair.differences("check")
            (below.root / f"{driver}-images/{IMAGE}/manifest").unlink()
            file_removed(below)
            for flags in ((), ("-q",), ("-r",), ("-f",), ("-f", "-q")):
                found += pair.differences("check", *flags)
            assert not found, "\n".join(found)
            assert IMAGE in (below.root / f"{driver}-images/images.json").read_text()


# -- differences that are meant (docs/compatibility.md)


def without_parent_record(place: stores.Place) -> None:
    without(place, "layers", BASE)


def test_a_directory_that_a_layer_stands_on_is_kept(twins: Callable[..., Twins]) -> None:
    pair = twins(without_parent_record)
    mine, theirs = pair.ours.ours("check", "-r", check=False), pair.go.go("check", "-r", check=False)
    assert sections(mine.stdout, pair.ours) == sections(theirs.stdout, pair.go)
    assert mine.returncode == theirs.returncode == 1
    assert tree(pair.ours, BASE).is_dir()
    assert not tree(pair.go, BASE).exists()
    assert pair.ours.ours("check", "-f", check=False).returncode == 0
    assert not tree(pair.ours, BASE).exists()
    assert not any(records(pair.ours).values())


@pytest.mark.parametrize("command", ["check", "gc"])
def test_what_is_mounted_stays_mounted(twins: Callable[..., Twins], command: str) -> None:
    pair = twins(nothing)
    for place, run, count in ((pair.ours, pair.ours.ours, 1), (pair.go, pair.go.go, 0)):
        run("mount", BOX)
        assert run(command).stdout == ""
        mounts = json.loads((place.run / f"{place.driver}-layers/mountpoints.json").read_bytes()) or []
        assert len(mounts) == count
        run("unmount", "-f", BOX, check=False)


ODD_TARS = {
    "no entries of parent directories": [tar(("a/b/file", b"x", 0o644))],
    "nothing of the directory that is changed": [
        tar(("etc", None, 0o700), ("etc/a", b"", 0o644), ("etc/b", b"", 0o644)),
        tar(("etc/c", b"", 0o644), ("etc/.wh.a", b"", 0o644)),
    ],
    "links with modes": [tar(("link", "target", 0o644))],
    "by way of a link below": [
        tar(("usr", None, 0o755), ("usr/bin", None, 0o755), ("bin", "usr/bin", 0o777)),
        tar(("bin/new", b"", 0o755)),
    ],
}


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_no_valid_archive_is_called_damaged(driver: str) -> None:
    for name, content in inputs.odd().items():
        if name == "twice":  # it is refused
            continue
        with stores.scratch("odd") as folder:
            store = layerhold.Store.open(graphroot=folder / "root", runroot=folder / "run", driver=driver)
            base = store.layers.create(diff=io.BytesIO(content))
            store.layers.create(base, diff=io.BytesIO(content))
            found = [problem.sentence for problems in store.check().layers.values() for problem in problems]
            assert not found, (name, found)


@pytest.mark.parametrize("name", ODD_TARS)
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.parametrize("made_by", ["ours", "go"])
def test_images_of_odd_tars_are_not_damaged(name: str, driver: str, made_by: str) -> None:
    with stores.scratch("odd") as folder:
        place = stores.Place(folder / "store", driver)
        run = place.ours if made_by == "ours" else place.go
        below: tuple[str, ...] = ()
        for number, content in enumerate(ODD_TARS[name], 1):
            run("import-layer", "-i", str(number) * 64, *below, stdin=content)
            below = (str(number) * 64,)
        run("create-image", "-i", IMAGE, *below)
        mine = place.ours("check", check=False)
        assert (mine.returncode, mine.stdout) == (0, ""), mine.stdout
        if made_by == "go":
            assert place.go("check", "-r", check=False).stdout
            assert not place.ours_json("images")
