"""What `--json` prints is what docs/json.md and the schemas say, for every command."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from layerhold.cli.table import COMMANDS, OWN
from tests import stores
from tests.stores import Place

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCHEMAS = {path.name: json.loads(path.read_text()) for path in (DOCS / "schemas").glob("*.json")}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
SILENT = {"copy"}  # takes the flag, as Go's program does, and prints nothing
JSON_COMMANDS = {
    command.names[0] for command in (*COMMANDS, *OWN) for flag in command.flags if flag.names[0] == "json"
} - SILENT
ALWAYS = {"config"}  # it prints JSON without the flag

# One after the other on one store; where a status other than 0 is expected it stands before the line.
LINES = """
drivers
layers
images
containers
import-layer -n base -f {tar}
create-layer -n top -l system_u:object_r:x base
import-layer -n packed -r -f {packed}
create-layer -n alone
create-image -n image -m text top
set-image-data -f {tar} image manifest
set-image-data -f {tar} image key
create-image -n other -d sha256:00000000000000000000000000000000000000000000000000000000000000ff base
create-container -n box -m text image
set-container-data -f {tar} box key
set-layer-data -f {tar} top key
layers
layer base top packed
1 layer base missing
images
image image other
1 image missing
images-by-digest sha256:00000000000000000000000000000000000000000000000000000000000000ff
containers
container box
1 exists base image missing
get-names base
add-names -n more base
set-names -n base -n still base
remove-names -n still base
remove-names -n other other
1 metadata base image box missing
list-layer-data top
list-layer-data base
list-image-data image
list-container-data box
mount box top
1 mount missing
mounted box
layer-parent-owners base top
container-parent-owners box
unmount box top
1 unmount missing
changes base
changes top
status
version
1 delete-layer base alone missing
1 delete-image image missing
1 delete missing
delete-container box
create-image -n third top
delete-image -t image
delete third
delete-image image
dedup
check
1 check -m 1ns
1 check -m 1ns --dry-run
gc --dry-run
gc
mount packed
1 shutdown
1 shutdown -f
shutdown
import-layer -n last -f {tar}
convert {root} --to vfs --into {new} --dry-run
convert {root} --to vfs --into {new}
wipe
create-storage-layer
storage-layers
config
"""


def documented() -> dict[str, str]:
    """The schema of each command, as the table of the page has it."""
    found = {}
    for row in (DOCS / "json.md").read_text().splitlines():
        cells = row.split(" | ")
        if len(cells) == 3 and (schema := re.search(r"\]\(schemas/(\S+)\)", cells[2])):
            found.update(dict.fromkeys(re.findall(r"`([a-z-]+)`", cells[0]), schema[1]))
    return found


def test_every_command_with_json_is_on_the_page() -> None:
    assert documented().keys() == JSON_COMMANDS | ALWAYS
    assert {*documented().values(), "layer.json"} == SCHEMAS.keys()


def test_every_command_with_json_is_run_here() -> None:
    assert {line.removeprefix("1 ").split()[0] for line in LINES.split("\n") if line} >= JSON_COMMANDS | ALWAYS


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., stores.Answer]]:
    (tmp_path / "a.tar").write_bytes(a_tar("w"))
    (tmp_path / "a.tar.gz").write_bytes(a_tar("w:gz"))
    place = Place(tmp_path / "store")
    try:
        yield lambda line: place.ours(
            *line.format(
                tar=tmp_path / "a.tar", packed=tmp_path / "a.tar.gz", root=place.root, new=place.folder / "new"
            ).split(),
            check=False,
        )
    finally:
        stores.clear(place.folder)


def a_tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo("file")
        info.uid, info.gid, info.size = os.getuid(), os.getgid(), 3
        tar.addfile(info, io.BytesIO(b"abc"))
    return file.getvalue()


def test_what_is_printed_fits_the_schema(run: Callable[[str], stores.Answer]) -> None:
    schemas = documented()
    for line in LINES.strip().splitlines():
        words = line.removeprefix("1 ")
        command, _, rest = words.partition(" ")
        done = run(f"{command} -j {rest}" if command in JSON_COMMANDS else words)
        assert done.returncode == line.startswith("1 "), (line, done.stdout, done.stderr)
        if command in schemas:
            value = json.loads(done.stdout.splitlines()[-1])
            try:
                validator(schemas[command]).validate(value)
            except jsonschema.ValidationError as error:
                pytest.fail(f"{line}: {done.stdout}\n{error}")


def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(SCHEMAS[name], registry=REGISTRY)


def test_a_schema_refuses_what_is_wrong() -> None:
    assert not validator("layers.json").is_valid([{"id": "x"}])
    assert not validator("changes.json").is_valid([{"Path": "/x", "Kind": 3}])
    assert not validator("done.json").is_valid("x")
    assert not validator("mounts.json").is_valid([{"id": "x", "error": ""}])
