"""What is measured: each job is what to prepare (not timed) and the command whose run counts."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Program:
    """One of the peers: how it is called, and the environment that it runs in."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]

    def on(self, fs: Path, *words: str) -> list[str]:
        """Give the command line that does `words` on the store of this file system."""
        return [*self.argv, "-g", f"{fs}/graph", "-R", f"{fs}/run", "-s", "overlay", *words]

    def must(self, fs: Path, *words: str) -> str:
        """Run the command, untimed, and give what it prints."""
        done = subprocess.run(self.on(fs, *words), env=dict(self.env), capture_output=True, text=True, check=True)
        return done.stdout


@dataclass(frozen=True)
class Job:
    """`prepare` gets the program and the file system and gives the words of the command to time."""

    name: str
    prepare: Callable[[Program, Path], list[str]]


def applying(name: str, layer: Path) -> Job:
    """Bring in a layer into an empty store."""

    def prepare(program: Program, fs: Path) -> list[str]:
        program.must(fs, "layers")
        return ["import-layer", "-f", str(layer)]

    return Job(f"apply {name}", prepare)


def diffing(name: str, layer: Path) -> Job:
    """Write a layer out, byte for byte."""

    def prepare(program: Program, fs: Path) -> list[str]:
        program.must(fs, "import-layer", "-n", "x", "-f", str(layer))
        return ["diff", "-u", "-f", "/dev/null", "x"]

    return Job(f"diff {name}", prepare)


def comparing(name: str, layer: Path) -> Job:
    """Say what a layer changes."""

    def prepare(program: Program, fs: Path) -> list[str]:
        program.must(fs, "import-layer", "-n", "x", "-f", str(layer))
        return ["changes", "x"]

    return Job(f"changes {name}", prepare)


def listing(count: int) -> Job:
    """List the layers of a store that has `count` of them."""

    def prepare(program: Program, fs: Path) -> list[str]:
        program.must(fs, "layers")
        records = [{"id": f"{n:064x}", "created": "2026-01-01T00:00:00Z"} for n in range(count)]
        (fs / "graph/overlay-layers/layers.json").write_text(json.dumps(records, separators=(",", ":")))
        return ["layers"]

    return Job(f"list {count:,} layers", prepare)


def starting() -> Job:
    """Ask whether something exists, in an empty store."""

    def prepare(program: Program, fs: Path) -> list[str]:
        program.must(fs, "create-layer", "-n", "x")
        return ["exists", "x"]

    return Job("start-up (exists x)", prepare)
