"""Who is measured: our command, our library in a process of its own, the Go programs, and what is the least to do.

The Go programs hand decompression to pigz and zstd if these are in their PATH, and are slower for it or faster as the
layer may be. So they run without, and where it matters with them, too, and of both the faster counts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import measure
from benchmarks.measure import Sample
from tests import programs

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS, FLOOR, BARE_PYTHON = "Layerhold", "floor", "bare Python"
GO = ("1.64", "1.43")
HELPED = " with pigz and zstd"
_INSIDE = Path(__file__).with_name("inside.py")


@dataclass(frozen=True)
class Program:
    """One that has the commands of containers-storage: how it is called, and the environment that it runs in."""

    name: str
    path: str
    env: Mapping[str, str]

    def on(self, fs: Path, *words: str, driver: str = "overlay") -> list[str]:
        """Give the command line that does `words` on the store of this file system."""
        return [self.path, "-g", f"{fs}/graph", "-R", f"{fs}/run", "-s", driver, *words]

    def must(self, fs: Path, *words: str, driver: str = "overlay") -> str:
        """Run a command, untimed, and give what it prints."""
        command = self.on(fs, *words, driver=driver)
        return subprocess.run(command, env=dict(self.env), capture_output=True, text=True, check=True).stdout

    def run(self, fs: Path, *words: str, times: int = 1, driver: str = "overlay") -> Sample:
        """Run a command, several times if it is a short one."""
        return measure.repeated(self.on(fs, *words, driver=driver), times, env=self.env)


def bare() -> dict[str, str]:
    """Give an environment without settings, and without pigz and zstd."""
    return {"PATH": programs.bare_path(), "HOME": "/root"}


def ours() -> Program:
    """Give our command, of the environment that runs this."""
    return Program(OURS, str(Path(sys.executable).with_name("layerhold")), bare())


def go(*, helped: bool = False, versions: tuple[str, ...] = GO) -> list[Program]:
    """Give the Go programs, with `helped` each twice."""
    found = [Program(version, programs.storage(version), bare()) for version in versions]
    if helped and (shutil.which("pigz") or shutil.which("zstd")):
        full = {**bare(), "PATH": os.environ["PATH"]}
        found += [Program(program.name + HELPED, program.path, full) for program in found]
    return found


def inside(fs: Path, task: str, *words: str) -> Sample:
    """Let our library do a task of inside.py in a new process, which times itself."""
    out = fs / "seconds"
    command = [sys.executable, "-I", str(_INSIDE), f"{fs}/graph", f"{fs}/run", task, *words]
    (whole,) = measure.runs([command], env=bare(), out=str(out))
    wall, cpu = out.read_text().split()
    return Sample(float(wall), float(cpu), whole.memory)


def bare_python(times: int) -> Sample:
    """Start the interpreter that runs this, with nothing to do."""
    return measure.repeated([sys.executable, "-I", "-c", "pass"], times, env=bare())


_FLOOR = """
set -e
mkdir {fs}/tree
mkfifo {fs}/packed {fs}/plain
openssl dgst -sha256 {fs}/packed >>{fs}/digests & one=$!
openssl dgst -sha256 {fs}/plain >>{fs}/digests & two=$!
tee {fs}/packed <{layer} | {unpack} | tee {fs}/plain |
  tar -x -p --numeric-owner --same-owner --xattrs --xattrs-include='*' -C {fs}/tree
wait $one $two
"""


def floor(fs: Path, layer: Path) -> Sample:
    """Do with ordinary tools what applying a layer cannot do without: unpack, hash both streams, make the files."""
    unpack = {".gz": f"{shlex.quote(programs.igzip())} -dc", ".zst": "zstd -dcq"}.get(layer.suffix, "cat")
    script = _FLOOR.format(fs=shlex.quote(str(fs)), layer=shlex.quote(str(layer)), unpack=unpack)
    return measure.run(["/bin/sh", "-c", script], env=dict(os.environ))
