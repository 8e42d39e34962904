"""Where a test's commands run: as root of this machine, or as an ordinary user's root, in `podman unshare`.

Both have Go's program, our command under its name, folders that are theirs, and a way to do something there. A test
looks at the files of both from outside, as root of the machine. What is mounted in `podman unshare` is seen there only.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests import disks, programs, stores
from tests.users import OrdinaryUser, a_user

Answer = subprocess.CompletedProcess[bytes]
T = TypeVar("T")
INSIDE = " in podman unshare"


class AsRoot:
    """Here, as root of this machine."""

    python = sys.executable
    isolated = ("-I",)

    def go(self, version: str = programs.NEWEST) -> str:
        """The path of Go's program."""
        return programs.storage(version)

    def do(self, work: Callable[..., T], *args: Any) -> T:
        """Call a function."""
        return work(*args)

    def run(self, words: Sequence[str], env: Mapping[str, str], **options: Any) -> Answer:
        """Run a command; `options` are those of `subprocess.run`."""
        return subprocess.run(list(words), check=False, capture_output=True, env=os.environ | env, **options)

    def give(self, path: Path) -> None:
        """Make a file or a folder belong to who runs commands here."""


class InPodmanUnshare:
    """In the user namespace of an ordinary user that Podman made, as its root."""

    isolated = ()  # our package is on the path

    def __init__(self, user: OrdinaryUser, inside: int) -> None:
        self.python = user.python
        self.user = user
        pairs = Path(f"/proc/{inside}/environ").read_text().rstrip("\0").split("\0")
        self._environment = dict(pair.split("=", 1) for pair in pairs)
        self._worker = ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _enter, (inside, str(user.home)))

    def go(self, version: str = programs.NEWEST) -> str:
        """The path of a copy of Go's program that the user can run."""
        copied = self.user.code / f"containers-storage-{version}"
        if not copied.exists():
            shutil.copy(programs.storage(version), copied)
            copied.chmod(0o755)
        return str(copied)

    def do(self, work: Callable[..., T], *args: Any) -> T:
        """Call a function there: one that a process can be told by its name."""
        return self._worker.submit(work, *args).result()

    def run(self, words: Sequence[str], env: Mapping[str, str], **options: Any) -> Answer:
        """Run a command; `options` are those of `subprocess.run`."""
        return self.do(_run, list(words), self._environment | dict(env), options)

    def give(self, path: Path) -> None:
        """Make a file or a folder belong to who runs commands here."""
        os.chown(path, self.user.uid, self.user.gid)

    def end(self) -> None:
        """End the process that does the work."""
        self._worker.shutdown()


Where = AsRoot | InPodmanUnshare
HERE = AsRoot()


class PlaceInside(stores.Place):
    """A store that is used in `podman unshare`."""

    def __init__(self, where: InPodmanUnshare, folder: Path, driver: str) -> None:
        super().__init__(folder, driver)
        self._where = where
        where.give(folder)

    def ours(self, *args: str, stdin: bytes | None = None, check: bool = True) -> stores.Answer:
        """Run our command on this store."""
        return self._run([self._where.python, "-c", programs.OURS_AS_GO, *self.flags, *args], stdin, check)

    def go(
        self, *args: str, version: str = programs.NEWEST, stdin: bytes | None = None, check: bool = True
    ) -> stores.Answer:
        """Run Go's containers-storage on this store."""
        return self._run([self._where.go(version), *self.flags, *args], stdin, check)

    def do(self, work: Callable[..., T], *args: Any) -> T:
        """Call a function where the programs run."""
        return self._where.do(work, *args)

    def _run(self, words: list[str], stdin: bytes | None, check: bool) -> stores.Answer:
        done = self._where.run(words, stores.QUIET, input=stdin or b"", timeout=300)
        return stores.answer(words, done, check=check)


@contextmanager
def podman_unshare(driver: str) -> Iterator[tuple[InPodmanUnshare, Path]]:
    """`podman unshare` of an ordinary user, and a folder of his for stores of a driver."""
    if not shutil.which("podman"):
        raise programs.Unavailable("podman is not installed (Debian: apt-get install podman)")
    with ExitStack() as stack:
        user = stack.enter_context(a_user())
        disk = stack.enter_context(disks.disk(driver)) if driver in disks.SIZES else user.home
        folder = disk / "stores"
        folder.mkdir()
        os.chown(folder, user.uid, user.gid)
        # What keeps the namespace ends by this, when all others in it have ended.
        stack.callback(user.as_user, ["podman", "system", "migrate"])
        # (What becomes another program has no environment for a moment, so this shell waits by itself.)
        process = stack.enter_context(user.start(["podman", "unshare", "sh", "-c", "echo $$; read _"]))
        assert process.stdin
        assert process.stdout
        stack.enter_context(process.stdin)  # at its end, so does `read`
        where = InPodmanUnshare(user, int(process.stdout.readline()))
        stack.callback(where.end)
        yield where, folder


@contextmanager
def folder_for(place: str) -> Iterator[Callable[[str], stores.Place]]:
    """A folder for stores as `place` says, "vfs" or "vfs in podman unshare"; give what makes one of a name."""
    driver = place.removesuffix(INSIDE)
    if driver == place:
        with disks.scratch_for(driver) as folder:
            yield lambda name: stores.Place(folder / name, driver)
    else:
        with podman_unshare(driver) as (where, folder):
            yield lambda name: PlaceInside(where, folder / name, driver)


def _enter(inside: int, home: str) -> None:
    """Become in this process what process `inside` is."""
    process = os.pidfd_open(inside)
    if ctypes.CDLL(None, use_errno=True).setns(process, 0x10000000 | 0x20000):  # CLONE_NEWUSER | CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "setns")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.chdir(home)


def _run(words: list[str], env: dict[str, str], options: dict[str, Any]) -> Answer:
    return subprocess.run(words, check=False, capture_output=True, env=env, **options)
