"""The manual pages: of every command, and such that man shows them without a warning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from layerhold.cli import main as command
from layerhold.cli.descriptions import DESCRIPTIONS, description
from layerhold.cli.manual import pages
from layerhold.cli.table import COMMANDS, GLOBAL, OWN

PAGES = dict(pages())


def test_there_is_a_page_for_the_program_and_for_each_command(tmp_path: Path) -> None:
    assert command.main(["manual", str(tmp_path / "man1")]) == 0
    written = {file.name: file.read_text() for file in (tmp_path / "man1").iterdir()}
    assert written == PAGES
    assert written.keys() == {"layerhold.1", *(f"layerhold-{one.names[0]}.1" for one in (*COMMANDS, *OWN))}


def test_a_page_has_every_flag() -> None:
    for one in (*COMMANDS, *OWN):
        page = PAGES[f"layerhold-{one.names[0]}.1"]
        for flag in one.flags:
            assert all(f"\\-{escaped(name)}\\fR" in page for name in flag.names)
    assert all(f"\\-{escaped(flag.names[0])}\\fR" in PAGES["layerhold.1"] for flag in GLOBAL)


def escaped(name: str) -> str:
    return name.replace("-", "\\-")


def test_descriptions_are_of_commands() -> None:
    names = {one.names[0] for one in (*COMMANDS, *OWN)}
    assert not DESCRIPTIONS.keys() - names
    assert all(len(line) <= 96 for name in names for line in description(name).splitlines())


@pytest.mark.parametrize(
    "words", [["groff", "-man", "-ww", "-z", "-Tutf8"], ["mandoc", "-Tlint", "-Wwarning"]], ids=" ".join
)
def test_no_page_makes_roff_complain(tmp_path: Path, words: list[str]) -> None:
    if not shutil.which(words[0]):
        pytest.skip(f"{words[0]} is not installed")
    command.main(["manual", str(tmp_path)])
    done = subprocess.run(
        [*words, *sorted(map(str, tmp_path.iterdir()))], check=False, capture_output=True, text=True, timeout=60
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line]
    assert not said


def test_man_shows_a_page(tmp_path: Path) -> None:
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    command.main(["manual", str(tmp_path)])
    shown = subprocess.run(
        ["man", "--warnings", "-l", str(tmp_path / "layerhold-diff.1")],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MANROFFOPT": "-c"},
    )
    assert shown.stderr == ""
    assert "layerhold diff [FLAG...] LAYER [OTHER]" in shown.stdout
    assert "--file, -f FILE" in shown.stdout
