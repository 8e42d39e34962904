"""What the shells complete, asked of the shells themselves, on a store that is there."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import layerhold
from layerhold.cli import main as command
from layerhold.cli.completion import SHELLS
from layerhold.cli.table import COMMANDS, OWN

CASES = {
    "layerhold im": ["image", "images", "images-by-digest", "import-layer"],
    "layerhold -D -g {root} completi": ["completion"],
    "layerhold layers --tre": ["--tree"],
    "layerhold completion ": ["bash", "fish", "zsh"],
    "layerhold {store} layer ba": ["base"],
    "layerhold {store} delete-image lo": ["localhost/demo:1"],
    "layerhold {store} delete-image localhost/demo:": ["localhost/demo:1"],
    "layerhold {store} exists ba": ["base"],
    "layerhold {store} import-layer -f {files}/one.t": ["{files}/one.tar"],
    "layerhold {store} delete-container ": [],
}
KEYS = {
    "layerhold {store} get-image-data -f x localhost/demo:1 ": ["manifest"],
    "layerhold {store} set-layer-data base ": ["blob"],
}


class Place:
    """A store with a layer and an image, and our command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "files").mkdir()
        (folder / "files/one.tar").touch()
        program = folder / "bin/layerhold"
        code = "import sys; from layerhold.cli.main import run; run()"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "{code}" "$@"\n')
        program.chmod(0o755)
        with layerhold.Store.open(graphroot=folder / "root", runroot=folder / "run", driver="vfs") as store:
            layer = store.layers.create(names=["base"])
            layer.data.set("blob", b"")
            store.images.create(layer=layer, names=["localhost/demo:1"], data={"manifest": b"{}"})
        self.folder = folder
        self.env = {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder), "TERM": "dumb"}

    def filled(self, text: str) -> str:
        root = f"{self.folder}/root"
        return text.format(root=root, store=f"-g {root} --run={self.folder}/run -s vfs", files=f"{self.folder}/files")

    def script(self, shell: str) -> Path:
        """The completion of a shell, in a file."""
        file = self.folder / f"layerhold.{shell}"
        file.write_text(SHELLS[shell]())
        return file

    def run(self, *words: str) -> str:
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=self.env, timeout=60)
        assert not done.stderr, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("completion"))


def needed(shell: str) -> str:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    return shell


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_it(place: Place, shell: str) -> None:
    assert place.run(needed(shell), "-n", str(place.script(shell))) == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_flag_is_in_it(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert command.main(["completion", shell]) == 0
    sys.stdout.flush()
    script = capfd.readouterr().out
    for one in (*COMMANDS, *OWN):
        assert all(name in script for name in (*one.names, *(name for flag in one.flags for name in flag.names)))


def test_another_shell_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.main(["completion", "csh"]) == 1
    sys.stdout.flush()
    assert capfd.readouterr().err == 'no completion for "csh"\nhint: there is one for bash, zsh, fish\n'


@pytest.mark.parametrize("line", [*CASES, *KEYS])
def test_bash(place: Place, line: str) -> None:
    words = place.filled(line)
    # Bash parts words at colons, too, and what the function gives stands for the last part.
    program = """
        source "$1"; COMP_LINE=$2; COMP_POINT=${#2}; _layerhold layerhold; printf '%s\\n' "${COMPREPLY[@]}"
    """
    found = place.run(needed("bash"), "--norc", "-c", program, "bash", str(place.script("bash")), words).split()
    stays = words.rpartition(" ")[2].rpartition(":")[0]
    wanted = [place.filled(word) for word in {**CASES, **KEYS}[line]]
    assert sorted(found) == [word.removeprefix(f"{stays}:") for word in wanted if word]


@pytest.mark.parametrize("line", CASES)
def test_fish(place: Place, line: str) -> None:
    program = 'source $argv[1]; complete -C "$argv[2]"'
    out = place.run(needed("fish"), "--no-config", "-c", program, str(place.script("fish")), place.filled(line))
    found = [row.split("\t")[0] for row in out.splitlines()]
    assert sorted(found) == [place.filled(word) for word in CASES[line]]


@pytest.mark.parametrize("line", [line for line, words in {**CASES, **KEYS}.items() if len(words) == 1])
def test_zsh(place: Place, line: str) -> None:
    """The one word that fits is put into the line; zsh completes in a terminal only."""
    (wanted,) = {**CASES, **KEYS}[line]
    typed = place.filled(line)
    with Terminal([needed("zsh"), "-f", "-i"], place.env) as zsh:
        zsh.send(f"autoload -U compinit; compinit -D -u; source {place.script('zsh')}; {SHOW}; echo re''ady\n")
        zsh.wait("ready\r\n")
        zsh.send(f"{typed}\t\x18")
        done = zsh.wait(">>>").rpartition("<<<")[2]
    assert done == f"{typed.rpartition(' ')[0]} {place.filled(wanted)} "


# Control and X print the line.
SHOW = """show() { print -rn -- "<<<$BUFFER>>>" }; zle -N show; bindkey '^X' show"""


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execvpe(words[0], words, env)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.fd)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self, text: str) -> str:
        """Read until `text` comes; give what was before it."""
        end = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.fd], [], [], 1)[0]:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before
