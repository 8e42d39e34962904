"""The examples of README and docs: found in the pages, and run on a store of their own."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
README, GUIDE, API = ROOT / "README.md", ROOT / "docs/guide.md", ROOT / "docs/api.md"


class Block(NamedTuple):
    """What stands between two fences: its language, its text, and the headline above it."""

    language: str
    text: str
    headline: str


def blocks(page: Path) -> list[Block]:
    found = []
    headline = ""
    for part in re.finditer(r"^#+ ([^\n]*)$|^```(\S+)\n(.*?)^```$", page.read_text(), re.M | re.S):
        headline = part[1] or headline
        if part[2]:
            found.append(Block(part[2], part[3], headline))
    return found


def examples(page: Path) -> list[tuple[Block, str]]:
    """The Python blocks, each with the text block that follows it: what it prints."""
    every = blocks(page)
    following = [*every[1:], Block("", "", "")]
    return [
        (block, after.text if after.language == "text" else "")
        for block, after in zip(every, following, strict=True)
        if block.language == "python"
    ]


# The task of the guide that makes the image which the others take.
IMPORT = next(block.text for block, _ in examples(GUIDE) if block.headline.startswith("2."))


class Folder:
    """A folder with a root filesystem as tar, a store, and the settings by which every program finds that store."""

    def __init__(self, path: Path, driver: str = "vfs") -> None:
        self.path = path
        (path / "rootfs.tar.gz").write_bytes(gzip.compress(rootfs()))
        where = f'driver = "{driver}"\ngraphroot = "{path}/root"\nrunroot = "{path}/run"\n'
        (path / "storage.conf").write_text(f"[storage]\n{where}")
        program = path / "bin/layerhold"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from layerhold.cli.main import run; run()" "$@"\n')
        program.chmod(0o755)

    def run(self, *words: str) -> str:
        settings = {"CONTAINERS_STORAGE_CONF": f"{self.path}/storage.conf", "LC_ALL": "C.UTF-8"}
        env = {**os.environ, **settings, "PATH": f"{self.path}/bin:{os.environ['PATH']}"}
        done = subprocess.run(words, check=False, cwd=self.path, env=env, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def python(self, program: str) -> str:
        return self.run(sys.executable, "-W", "error", "-c", program)


def rootfs() -> bytes:
    """The least that examples look for, with owners that whoever runs the tests may give."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in {"bin": None, "bin/sh": b"#!\n", "etc": None, "etc/os-release": b"ID=demo\n"}.items():
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mode = os.getuid(), os.getgid(), 0o755
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return file.getvalue()
