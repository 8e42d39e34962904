"""Stores on disk for tests, used by our command and by the Go programs, and trees compared entry by entry."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from layerhold.tree.files import FULL
from tests import programs

# No settings of this machine reach a test: the configuration is empty.
QUIET = {"CONTAINERS_STORAGE_CONF": "/dev/null", "LC_ALL": "C.UTF-8"}
T = TypeVar("T")
Answer = subprocess.CompletedProcess[str]


class Place:
    """A store in a folder: its graph root is `root`, its run root is `run`."""

    def __init__(self, folder: Path, driver: str = "vfs", options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.driver = driver
        self.root = folder / "root"
        self.run = folder / "run"
        self.options = tuple(options)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def flags(self) -> list[str]:
        """The global options that name this store, the same for ours and for Go's."""
        options = [word for option in self.options for word in ("--storage-opt", option)]
        return ["--graph", str(self.root), "--run", str(self.run), "--storage-driver", self.driver, *options]

    def ours(self, *args: str, stdin: bytes | None = None, check: bool = True) -> Answer:
        """Run our command on this store."""
        return self._run([*ours(), *self.flags, *args], stdin, check)

    def go(self, *args: str, version: str = programs.NEWEST, stdin: bytes | None = None, check: bool = True) -> Answer:
        """Run Go's containers-storage on this store; an ordinary user's needs a namespace that it cannot make here."""
        if os.geteuid():
            raise programs.Unavailable("Go's program needs root, or a user namespace with many IDs")
        return self._run([programs.storage(version), *self.flags, *args], stdin, check)

    def do(self, work: Callable[..., T], *args: Any) -> T:
        """Call a function where the programs run."""
        return work(*args)

    def _run(self, words: list[str], stdin: bytes | None, check: bool) -> Answer:
        done = subprocess.run(
            words, check=False, input=stdin or b"", capture_output=True, env=os.environ | QUIET, timeout=300
        )
        return answer(words, done, check=check)

    def ours_json(self, *args: str) -> Any:
        """What our command prints with --json."""
        return json.loads(self.ours(*args, "--json").stdout)

    def go_json(self, *args: str, version: str = programs.NEWEST) -> Any:
        """What Go's command prints with --json; nothing is an empty list."""
        return json.loads(self.go(*args, "--json", version=version).stdout) or []

    def podman43(self, *args: str) -> Answer:
        return programs.podman43(self.folder, *args, driver=self.driver)

    def podman58(self, *args: str) -> Answer:
        return programs.podman58(self.folder, *args, driver=self.driver)

    def reference(self, name: str) -> str:
        """How skopeo and buildah name an image in this store."""
        return f"containers-storage:[{self.driver}@{self.root}+{self.run}]{name}"

    @contextmanager
    def mounted(self, ref: str, *, go: bool = False) -> Iterator[Path]:
        """A layer's or container's tree, mounted by our command or by Go's."""
        run = self.go if go else self.ours
        path = Path(run("mount", ref).stdout.strip().splitlines()[-1])
        try:
            yield path
        finally:
            run("unmount", ref)


def ours() -> list[str]:
    """The words that start our command."""
    return [sys.executable, "-I", "-c", "import sys; from layerhold.cli.main import run; sys.exit(run())"]


def answer(words: list[str], done: subprocess.CompletedProcess[bytes], *, check: bool) -> Answer:
    """What a program said, as text; an AssertionError with that, if it failed and should not have."""
    found = Answer(words, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if check and found.returncode:
        tail = [word for word in words if not word.startswith("import sys")]
        raise AssertionError(f"{' '.join(tail)} ended with {found.returncode}:\n{found.stdout}{found.stderr}")
    return found


def descriptors() -> list[str]:
    """The descriptors that this process has open, when what earlier tests left to the collector has been closed."""
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))


# -- trees


def nested(at: int, depth: int, name: str = "long-name") -> int:
    """Make directories one in the other in the directory `at`, which is closed; give the descriptor of the last."""
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    return at


def gnu_extract(tar: Path, into: Path) -> Path:
    """A tar as GNU tar unpacks it: what an extraction has to equal."""
    into.mkdir(parents=True, exist_ok=True)
    keep = ["--numeric-owner", "-p", "--same-owner", "--xattrs", "--xattrs-include=*"]
    subprocess.run(["tar", *keep, "-xf", str(tar), "-C", str(into)], check=True, capture_output=True)
    return into


def packed(**files: bytes) -> bytes:
    """A tar of files with these names and contents, all root's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def full_after(path: Path) -> int:
    """Write until there may be no more; how many bytes that were."""
    written, block = 0, os.urandom(1 << 19)
    with path.open("wb") as file:
        while True:
            try:
                written += os.write(file.fileno(), block)
                os.fsync(file.fileno())  # some count what is on the disk
            except OSError as error:
                if error.errno not in FULL:
                    raise
                return written


# -- folders

# Podman 4.3 takes no run root longer than 50 characters: a store's folder in here, and "/run", have 19.
_LONGEST_BASE = 31


def scratch_base() -> Path:
    """A folder on a file system that overlay can stand on, by a short name."""
    for base in (programs.WORK / "scratch", Path("/var/tmp"), Path("/dev/shm"), Path(tempfile.gettempdir())):
        try:
            base.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if len(str(base)) > _LONGEST_BASE:
            continue
        if os.access(base, os.W_OK) and _filesystem(base) not in ("overlay", "nfs", "nfs4", "9p", "fuse"):
            return base
    return Path(tempfile.gettempdir())


def _filesystem(path: Path) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], check=False, capture_output=True, text=True)
    return {"overlayfs": "overlay"}.get(name := done.stdout.strip(), name)


def mounts_below(folder: Path | str) -> list[str]:
    """The mount points in a folder, the innermost first."""
    found = []
    prefix = os.path.realpath(folder)
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4])
        if point == prefix or point.startswith(prefix + "/"):
            found.append(point)
    return found[::-1]


def clear(folder: Path) -> None:
    """Unmount all that is in a folder, then remove it, whatever the modes in it are."""
    for point in mounts_below(folder):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    if mounts_below(folder):
        raise AssertionError(f"still mounted: {mounts_below(folder)}")
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=False, capture_output=True)
    shutil.rmtree(folder)


@contextmanager
def scratch(name: str = "store") -> Iterator[Path]:
    """A new folder for a store; at the end it is unmounted and removed."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch_base()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        clear(folder)
