"""The older program, containers-storage 1.24.8: its commands and flags are ours, its stores are ours, and the reverse.

Rows of `command_rows.py` run on twin stores as in test_commands.py, with that program on the other side; errors' words
are each program's own. Where it does something else than the newest, the newest counts: `OLDER` says in which rows, and
docs/compatibility.md ("What the older program did") what that is.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from layerhold.cli import table
from tests import programs, stores
from tests.compat import command_rows, each_other
from tests.compat.test_commands import DRIVERS, Template, Twin, compare, made, write_inputs

pytestmark = [pytest.mark.compat, pytest.mark.root]

VERSION = "1.24"
COMPATIBILITY = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"


class Older(NamedTuple):
    """Where the older program does something else: rows that may differ on these drivers; some of `command` have to."""

    command: str
    rows: str
    drivers: tuple[str, ...] = DRIVERS


# By the first cell of the table.
OLDER = {
    "errors": Older("mount", r"mount -r -j no-such-image"),  # in JSON; what is on standard error is not compared
    "`add-names`": Older("add-names", r"add-?names .*-n"),
    "`container-parent-owners`": Older("container-parent-owners", r"(mount box ; )?container-parent-owners"),
    "`create-container` with names": Older("create-container", r"create-?container .*-n"),
    "`delete-image --json` with an error": Older("delete-image", r"delete-image .*-j"),
    "`delete-layer` by a name": Older("delete-layer", r"delete-layer (-j )?[a-z]"),
    "`mount --ro` on `vfs`": Older("mount", r"mount (-r|--ro)", ("vfs",)),
    "`status` on `overlay`": Older("status", "status", ("overlay",)),
    "`version`": Older("version", "version"),
}
HANGS = "shutdown -f"  # with something mounted
# Commands in which the driver has a part.
OF_DRIVERS = re.compile("apply|import|create|delete|mount|changes|diff|status|copy|shutdown|wipe")


class OlderTwin(Twin):
    """A twin whose maps are in one order: the older program writes them in any."""

    def plain(self, output: bytes) -> str:
        return re.sub(r'(?<="big-data-)(sizes|digests)":\{(.*?)\}', _sorted_map, super().plain(output))


def _sorted_map(found: re.Match[str]) -> str:
    return f'{found[1]}":{{{",".join(sorted(found[2].split(",")))}}}'


class OlderTemplate(Template):
    """Twins of ours and the older program."""

    def go(self, folder: Path) -> Twin:
        return self._twin(["containers-storage"], programs.storage(VERSION), folder / "go")

    def _twin(self, program: list[str], executable: str, folder: Path) -> Twin:
        twin = OlderTwin(program, executable, folder, driver=self.driver, files=self.files, settings=self.settings)
        twin.out.mkdir(parents=True, exist_ok=True)
        return twin


@pytest.fixture(scope="module", params=DRIVERS)
def template(request: pytest.FixtureRequest) -> Iterator[Template]:
    programs.storage(VERSION)
    with stores.scratch("older") as folder:
        write_inputs(folder / "files")
        yield made(OlderTemplate(folder / "template", folder / "files", request.param))


# -- commands and flags


def help_of(*command: str) -> list[str]:
    """The lines of the older program's help."""
    done = subprocess.run([programs.storage(VERSION), *command, "--help"], check=False, capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("  ")]


@functools.cache
def older_commands() -> list[str]:
    """The names of the commands."""
    return [line.split()[0] for line in help_of() if re.match("  [a-z]", line)]


@functools.cache
def older_flags(command: str) -> set[str]:
    """The names of a command's flags."""
    left = [line.strip().split("  ")[0] for line in help_of(command) if line.startswith("  -")]
    return {flag for text in left for flag in re.findall(r"(?:^|, )--?([A-Za-z][-a-z0-9]*)", text)}


def test_every_command_and_flag_is_ours() -> None:
    ours = table.by_name()
    assert len(older_commands()) > 40
    assert older_flags("exists") > {"container", "c", "debug", "D"}
    for command in older_commands():
        assert command in ours
        flags = older_flags(command)
        assert flags <= {name for flag in (*ours[command].flags, *table.GLOBAL) for name in flag.names}, command


# -- twin stores


def rows_of(command: str) -> list[str]:
    """The rows of a command that ask for nothing that is newer."""
    rows = (row.strip().removeprefix("~ ") for row in command_rows.ROWS[command].strip().splitlines())
    return [row for row in rows if HANGS not in row and all(map(_is_older, row.split(" ; ")))]


def _is_older(line: str) -> bool:
    command, *words = line.split()
    known = {name: name for name in older_commands()} | {name.replace("-", ""): name for name in older_commands()}
    if command == "umount":
        command = "unmount"
    if command not in known:
        return False
    short = "".join(word[1:].partition("=")[0] for word in words if re.match("-[a-zA-Z]", word))
    long = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    return {*short, *long} <= older_flags(known[command])


@pytest.mark.parametrize("command", command_rows.ROWS)
def test_rows_give_the_same(template: Template, command: str) -> None:
    if template.driver != DRIVERS[0] and not OF_DRIVERS.search(command):
        return
    folder = template.folder.with_name(f"{command}-{template.driver}")
    found = {row: compare(template, folder, f"~ {row}") for row in rows_of(command)}
    for older in OLDER.values():
        if template.driver in older.drivers:
            differ = [found.pop(row) for row in list(found) if re.match(older.rows, row)]
            assert command != older.command or any(differ), f"no more a difference: {older.rows}"
    assert not any(found.values()), "\n".join(line for lines in found.values() for line in lines)


def test_what_the_older_program_did_is_documented() -> None:
    section = COMPATIBILITY.read_text().partition("### What the older program did\n")[2].partition("\n#")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")][2:]
    assert sorted(rows) == sorted([*OLDER, f"`{HANGS}` with something mounted", "maps in JSON"])


# -- each other's stores


@pytest.mark.parametrize("maker", ["ours", "older"])
def test_each_reads_what_the_other_made(template: Template, maker: str) -> None:
    folder = template.folder.with_name(f"read-{template.driver}")
    pair = dict(zip(("ours", "older"), template.twins(folder), strict=True))
    try:
        each_other.read(pair.pop(maker), *pair.values())
    finally:
        stores.clear(folder)
