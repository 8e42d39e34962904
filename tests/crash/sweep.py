"""Kill a process at every system call with which it changes a store, and look at the store after each kill.

One run under `strace` counts, for each system call, at which of its calls the process touches the store. Then, for each
of them, the operation runs again on a fresh copy of the store, and `strace` kills it on entering that call: what was
done before is there, the call itself is not. `strace` counts by the name of the call and by thread.

`python -m tests.crash.sweep` runs what the tests run, and what takes too long for them (ONLY_SOAKED); with `--all`, at
the calls that open, write and mark files, too.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import disks, programs, stores
from tests.crash import scenarios
from tests.crash.scenarios import Place, Scenario

CALLS = (
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
    *("fsync", "fdatasync", "sync_file_range", "syncfs", "pwrite64", "symlink", "symlinkat", "link", "linkat"),
    *("mount", "move_mount", "umount2", "chown", "fchown", "lchown", "fchownat", "ioctl"),
)
MORE_CALLS = (
    *("openat", "openat2", "write", "writev", "fchmod", "fchmodat", "chmod"),
    *("setxattr", "fsetxattr", "lsetxattr", "utimensat", "mknodat", "ftruncate", "copy_file_range", "fcntl", "close"),
)
ROOT = Path(__file__).resolve().parent.parent.parent
PYTHONPATH = f"{ROOT}:{ROOT}/src"


class Kill(NamedTuple):
    """The moment of a kill: on entering the n-th call of this name."""

    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number}"


class Template:
    """A prepared store that is made in one of the ways, copied for each run."""

    def __init__(self, folder: Path, made: str) -> None:
        self.made = made
        self.base = folder
        self.tar = folder / "new.tar"
        self.tar.write_bytes(scenarios.layer_tar(4))
        self.origin = folder / "origin"
        disks.new_folder(self.origin, scenarios.driver_of(made))
        self._equip(self.origin)
        scenarios.prepare(self.origin, made)
        for point in stores.mounts_below(self.origin):
            if point != str(self.origin / "images"):
                subprocess.run(["umount", "-l", point], check=True)

    def copy(self, name: str) -> Place:
        """A copy of the store, next to it."""
        folder = self.base / name
        if scenarios.driver_of(self.made) == "btrfs":
            disks.copy(self.origin, folder, "btrfs")
        else:
            folder.mkdir()
            self._equip(folder)
            subprocess.run(["cp", "-a", "--reflink=auto", f"{self.origin}/.", str(folder)], check=True)
        return Place(folder, self.made)

    def _equip(self, folder: Path) -> None:
        if self.made.endswith("-tmpfs"):
            (folder / "images").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder / "images")], check=True)

    def words(self, place: Place, scenario: Scenario) -> list[str]:
        """The command of a scenario on a store."""
        return [sys.executable, "-c", scenario.command(), str(place.folder), self.made, str(self.tar)]


def strace(options: list[str], words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command under strace, without what it does not need to see."""
    if not shutil.which("strace"):
        raise programs.Unavailable("strace is not installed (Debian: apt-get install strace)")
    command = ["strace", "-f", "-qq", *options, *words]
    env = os.environ | stores.QUIET | {"PYTHONPATH": PYTHONPATH, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=ROOT, timeout=120)


def moments(template: Template, scenario: Scenario, calls: tuple[str, ...]) -> tuple[list[Kill], set[str]]:
    """All kills of a scenario, and the paths that may be there afterwards."""
    place = template.copy(f"count-{scenario.operation}")
    log = template.base / f"log-{scenario.operation}"
    before = scenarios.paths(place)
    traced = ",".join(f"?{call}" for call in calls)
    done = strace(["--seccomp-bpf", "-y", "-o", str(log), "-e", f"trace={traced}"], template.words(place, scenario))
    assert done.returncode == 0, done.stderr
    after = scenarios.paths(place)
    scenarios.again(place, scenario)
    with scenarios.open_store(place.folder, place.made) as store:
        store.layers.create(scenarios.BASE, id=scenarios.NEXT, diff=io.BytesIO(scenarios.layer_tar(5)))
    scenarios.go_looks(place, scenario)
    after |= scenarios.paths(place)
    stores.clear(place.folder)
    return sorted(touching(log.read_text(errors="replace"), str(place.folder))), before | after


def touching(log: str, folder: str) -> Iterator[Kill]:
    """Give the calls in a log of strace that changed something below `folder`."""
    counts: dict[tuple[str, str], int] = {}
    found = set()
    for line in log.splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if match is None:
            continue
        thread, call, rest = match.groups()
        number = counts[thread, call] = counts.get((thread, call), 0) + 1
        # A call that failed changed nothing: killing before the next one shows the same store.
        if folder in rest and not re.search(r"\) += -1 ", rest):
            found.add(Kill(call, number))
    yield from found


def run(
    template: Template, scenario: Scenario, kill: Kill, expected: set[str], *, go_first: bool, podman: bool = False
) -> None:
    """Kill a scenario at one moment and check the store; raises AssertionError with the moment in it."""
    place = template.copy(f"run-{scenario.operation}-{kill.call}-{kill.number}")
    try:
        inject = f"inject={kill.call}:signal=SIGKILL:when={kill.number}"
        # Not with --seccomp-bpf, which is faster, but injects nothing and says nothing.
        done = strace(["-o", "/dev/null", "-e", f"trace={kill.call}", "-e", inject], template.words(place, scenario))
        assert done.returncode == -signal.SIGKILL, f"was not killed: {done.returncode} {done.stderr}"
        scenarios.check(place, scenario, expected, go_first=go_first, podman=podman)
    except Exception as error:
        raise AssertionError(
            f"{scenario.operation} on {scenario.made}, killed at {kill}, {'Go' if go_first else 'we'} first: {error}"
        ) from error
    finally:
        stores.clear(place.folder)


def sweep(template: Template, scenario: Scenario, calls: tuple[str, ...] = CALLS) -> list[str]:
    """Kill a scenario at every moment; the failures, and as many kills as there were moments."""
    kills, expected = moments(template, scenario, calls)
    assert kills, "nothing touched the store"
    failures = []
    for kill in kills:
        podman = scenario == Scenario("create-image", "overlay") and kill.call.startswith(("rename", "unlink"))
        for go_first in (False, True) if scenario.made in scenarios.DRIVERS else (False,):
            try:
                run(template, scenario, kill, expected, go_first=go_first, podman=podman and not go_first)
            except AssertionError as error:
                failures.append(str(error))
    print(f"{scenario.operation} on {scenario.made}: {len(kills)} kills, {len(failures)} failures", flush=True)
    return failures


def main() -> int:
    """Run all scenarios; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="at every call that opens, writes or marks a file, too")
    parser.add_argument("--made", choices=scenarios.SWEPT, action="append")
    parser.add_argument("--operation", choices=scenarios.OPERATIONS, action="append")
    args = parser.parse_args()
    os.environ.update(stores.QUIET)
    failures = []
    for made in args.made or scenarios.SWEPT:
        with disks.scratch_for(scenarios.driver_of(made)) as folder:
            template = Template(folder, made)
            for operation in args.operation or scenarios.SWEPT[made]:
                calls = CALLS + MORE_CALLS if args.all else CALLS
                failures += sweep(template, Scenario(operation, made), calls)
    print("\n".join(failures))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
