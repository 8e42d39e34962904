"""Stores in several places, on twin stores: additional ones, images in a root of their own, containers in the run root.

The lines run on two stores, ours and that of the newest Go program, as in test_commands.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import programs, stores
from tests.compat.command_rows import TEMPLATE
from tests.compat.test_commands import DRIVERS, Template, compare, made, write_inputs

pytestmark = [pytest.mark.compat, pytest.mark.root]

# On a store that is empty, with one additional store that is made as the commands' template.
ADDITIONAL = """
layers
layers -j
layers -t
images
images -j
layer {top} ; layer -j base
image image ; image -j second
exists image base box no-such ; exists -l top ; exists -i image
get-names image ; metadata image top
create-layer -i {missing} -n base ; layers ; layer base
create-layer -i {missing} -n new top ; layer -j new ; layers -t
import-layer -i {missing} -f {files}/top.tar base ; layer -j {missing} ; changes {missing} ; diff -u {missing}
create-image -i {missing} -n mine top ; image mine ; images
create-image -i {image} -n mine base ; images -q ; image {image}
create-image -j -i {image} -m mine ; image -j {image}
create-image -i {image} -n image -d sha256:{missing} top ; image -j {image}
create-container -n nc image ; containers ; container nc ; delete-container nc
diff -u base ; diff -u top ; diff top base ; diffsize top ; changes top ; changes packed base
mount top ; mounted top ; unmount top
set-names -n zz top ; add-names -n zz base ; remove-names -n base base
delete-layer {packed} ; delete-image image ; delete image ; delete base ; layers ; images
set-metadata -m x image ; set-metadata -m x top
set-image-data -f {files}/config image key
set-layer-data -f {files}/config top key
list-image-data image ; get-image-data image manifest ; get-image-data-size image manifest
get-image-data-digest image sha256:config ; get-image-data image nothing
applydiff -f {files}/top.tar top
add-names -n other image ; images ; get-image-data image manifest ; set-metadata -m x image ; image -j other
set-names -n only image ; images -j
remove-names -n image image ; image -j {image}
images-by-digest sha256:1e3a3f3e2a2d2d6f0ae4a3ea1d8d3a6e2d9f2b3c4d5e6f708192a3b4c5d6e7f8
create-container -n nc image ; delete-image image ; wipe ; layers ; containers
"""

SPLIT = """
layers ; images ; containers
create-layer -r -i {missing} -n new top ; layer {missing}
import-layer -r -i {missing} -f {files}/top.tar base ; diff -u {missing} ; changes {missing} ; layer -j {missing}
create-layer -i {missing} base ; layer {missing}
create-container -n nc image ; mount nc ; unmount nc ; container nc ; delete-container nc
create-image -i {missing} -n x packed ; set-image-data -f {files}/config x key ; image x ; delete-image x
delete-container {box} ; delete-image image ; layers ; images
add-names -n zz image ; set-metadata -m x image ; image -j zz
delete-layer {packed} ; layers
wipe ; layers ; images ; containers
"""

TRANSIENT = """
containers ; containers -j ; container box
create-container -n nc image ; container nc ; containers ; mount nc ; unmount nc ; layers
create-container -n nc image ; set-container-data -f {files}/config nc key ; get-container-data nc key
delete-container box ; containers
delete-image image
wipe ; containers
"""

VOLATILE = """
create-container --volatile -i {missing} -n nc image ; container -j nc ; mount nc ; unmount nc ; delete-container nc
create-container --volatile -n nc image ; set-names -n nd nc ; set-metadata -m x nd
"""


@pytest.fixture(scope="module", params=DRIVERS)
def folder(request: pytest.FixtureRequest) -> Iterator[tuple[Path, str]]:
    programs.storage()
    with stores.scratch("apart") as folder:
        write_inputs(folder / "files")
        yield folder, request.param


def run(template: Template, rows: str) -> None:
    work = template.folder.with_name("work")
    found = [difference for row in rows.strip().splitlines() for difference in compare(template, work, row)]
    assert not found, "\n".join(found)


def test_an_additional_store(folder: tuple[Path, str]) -> None:
    place, driver = folder
    additional = made(Template(place / "additional", place / "files", driver)).go(place / "additional")
    additional.run("shutdown")
    settings = ("--storage-opt", f"{driver}.imagestore={additional.root}")
    empty = Template(place / "empty", place / "files", driver, settings)
    empty.folder.mkdir()
    run(empty, ADDITIONAL)


WAYS = {
    # Go cannot import a layer that is to be written to here: it renames from one root to the other.
    "split": (("--image-store", "{images}"), TEMPLATE.replace("import-layer", "import-layer -r"), SPLIT),
    "transient": (("--transient-store",), TEMPLATE, TRANSIENT),
    "volatile": ((), TEMPLATE, VOLATILE),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_store_in_several_places(folder: tuple[Path, str], way: str) -> None:
    place, driver = folder
    settings, template, rows = WAYS[way]
    run(made(Template(place / way, place / "files", driver, settings), template), rows)
