"""A `zfs` and a `zpool` for machines without OpenZFS: datasets, snapshots and clones as folders, by the same words.

What it answers is what OpenZFS answers: tests/drivers/test_zfs_commands.py holds both to one table (`make test-zfs`
runs it, and all other tests of the driver, on the real ones). It knows what the driver uses, and refuses the rest.

    <place>/state.json      all that is known of datasets and snapshots
    <place>/data/<number>/  the files of one; a file system in memory where it has a quota

The kernel here cannot mount a dataset: tests/zfs.py has a bind mount of its folder in the place of that. A dataset is
in use while it is mounted in some namespace, or some process has its top open.

This file is a program of its own as well, and needs nothing but the standard library: ZFS-OR-ZPOOL PLACE ARGUMENTS.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

POOL = "scripted"
_FREE = 1 << 40
_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2

Row = dict[str, Any]


class Refused(Exception):
    """What the command says, and how it ends."""

    def __init__(self, words: str, status: int = 1) -> None:
        super().__init__(words)
        self.status = status


class State:
    """All datasets and snapshots: rows by their whole names. A snapshot's name has an `@`.

    Rows: `number`, `txg`, `own` (its properties), `origin` (the number of the snapshot that it is a clone of),
    `deferred` (a snapshot that goes with its last clone).
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._file = place / "state.json"
        self.rows: dict[str, Row] = {}
        self.txg = 0

    @contextmanager
    def held(self) -> Iterator[State]:
        """Take turns; what a block changes that ends well is kept."""
        with open(self.place / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._file.exists():
                known = json.loads(self._file.read_text())
                self.rows, self.txg = known["rows"], known["txg"]
            yield self
            aside = self._file.with_suffix(".new")
            aside.write_text(json.dumps({"rows": self.rows, "txg": self.txg}))
            aside.rename(self._file)

    def row(self, name: str) -> Row:
        if name not in self.rows:
            raise Refused(f"cannot open '{name}': dataset does not exist")
        return self.rows[name]

    def data(self, row: Row) -> Path:
        return self.place / "data" / str(row["number"]) / str(row["number"])

    def new(self, name: str, own: dict[str, str], origin: str = "") -> Row:
        self.txg += 1
        number = f"{self.txg}-{os.urandom(8).hex()}"
        row = self.rows[name] = {"number": number, "txg": self.txg, "own": own, "origin": origin, "deferred": False}
        return row

    def value(self, name: str, key: str) -> str:
        """One property, as `list -p` shows it."""
        row = self.rows[name]
        if "@" in name:
            of_snapshots = {"name": name, "clones": ",".join(self.clones(row)) or "-", "createtxg": str(row["txg"])}
            return of_snapshots.get(key, "-")
        of_datasets = {
            "name": name,
            "clones": "-",
            "compression": "off",
            "available": str(_FREE),
            "used": str(sum(path.lstat().st_size for path in self.data(row).rglob("*"))) if key == "used" else "",
            "quota": row["own"].get("quota", "0"),
            "origin": next((other for other, its in self.rows.items() if its["number"] == row["origin"]), "-"),
        }
        return of_datasets[key] if key in of_datasets else self._inherited(name, key)

    def _inherited(self, name: str, key: str) -> str:
        above = name
        while above:
            if key in self.rows[above]["own"]:
                return str(self.rows[above]["own"][key])
            above = above.rpartition("/")[0]
        return f"/{name}" if key == "mountpoint" else "-"

    def clones(self, snapshot: Row) -> list[str]:
        return [name for name, row in self.rows.items() if row["origin"] == snapshot["number"]]

    def snapshots(self, name: str) -> list[str]:
        return [other for other in self.rows if other.startswith(f"{name}@")]

    def below(self, name: str) -> list[str]:
        """The dataset itself and all datasets below it, the innermost first."""
        return sorted((other for other in self.rows if _is_in(other, name) and "@" not in other), reverse=True)


def _is_in(name: str, top: str) -> bool:
    return name == top or name.startswith(f"{top}/")


def create_pool(state: State) -> None:
    """A pool with one dataset in it."""
    for name, own in ((POOL, {"mountpoint": "none"}), (f"{POOL}/layers", {"mountpoint": "legacy"})):
        _make_folder(state, state.new(name, own), 0)


# -- the commands


def create(state: State, words: list[str]) -> None:
    own, (name,) = _options(words)
    _check_new(state, name, own)
    row = state.new(name, own)
    _make_folder(state, row, 0)
    state.data(row).chmod(0o755)


def snapshot(state: State, words: list[str]) -> None:
    (name,) = words
    of = name.partition("@")[0]
    row = state.row(of)
    if name in state.rows:
        raise Refused(f"cannot create snapshot '{name}': dataset already exists")
    made = state.new(name, {})
    _make_folder(state, made, 0)
    _copy(state.data(row), state.data(made))


def clone(state: State, words: list[str]) -> None:
    own, (source, name) = _options(words)
    origin = state.row(source)
    _check_new(state, name, own)
    row = state.new(name, own, origin["number"])
    _make_folder(state, row, _size(state.data(origin)) if "quota" in own else 0)
    _copy(state.data(origin), state.data(row))


def destroy(state: State, words: list[str]) -> None:
    flags, (name,) = _flags(words, "rd")
    of, at, snapshots = name.partition("@")
    if at:
        _destroy_snapshots(state, of, snapshots.split(","), deferred="d" in flags)
        return
    state.row(name)
    inside = [one for one in state.below(name) if one != name] + state.snapshots(name)
    if inside and "r" not in flags:
        lines = "\n".join([f"cannot destroy '{name}': filesystem has children", "use '-r' to destroy the following"])
        raise Refused(f"{lines} datasets:\n" + "\n".join(sorted(inside)))
    gone = state.below(name)
    held = [own for one in gone for own in state.snapshots(one)]
    others = [other for own in held for other in state.clones(state.rows[own]) if other not in gone]
    if others:
        lines = f"cannot destroy '{name}': filesystem has dependent clones\nuse '-R' to destroy the following datasets:"
        raise Refused("\n".join([lines, *others]))
    for one in gone:
        _unmount(state, state.rows[one], name)
    for one in [*held, *gone]:
        _drop(state, one)


def _destroy_snapshots(state: State, of: str, names: list[str], *, deferred: bool) -> None:
    state.row(of)
    found = [f"{of}@{name}" for name in names if f"{of}@{name}" in state.rows]
    if not found:
        raise Refused("could not find any snapshots to destroy; check snapshot names.")
    for name in found:
        clones = state.clones(state.rows[name])
        if clones and not deferred:
            lines = (
                f"cannot destroy '{name}': snapshot has dependent clones\nuse '-R' to destroy the following datasets:"
            )
            raise Refused("\n".join([lines, *clones]))
    for name in found:
        if state.clones(state.rows[name]):
            state.rows[name]["deferred"] = True
        else:
            _drop(state, name)


def _drop(state: State, name: str) -> None:
    row = state.rows.pop(name)
    folder = state.data(row).parent
    _LIBC.umount2(os.fsencode(folder), _MNT_DETACH)
    shutil.rmtree(folder)
    for other, its in list(state.rows.items()):
        if its["deferred"] and its["number"] == row["origin"] and not state.clones(its):
            _drop(state, other)


def rename(state: State, words: list[str]) -> None:
    name, to = words
    state.row(name)
    if to in state.rows:
        raise Refused(f"cannot rename '{name}': dataset already exists")
    for other in [other for other in state.rows if _is_in(other, name) or other.startswith(f"{name}@")]:
        state.rows[to + other.removeprefix(name)] = state.rows.pop(other)


def promote(state: State, words: list[str]) -> None:
    (name,) = words
    row = state.row(name)
    origin = state.value(name, "origin")
    if origin == "-":
        raise Refused(f"cannot promote '{name}': not a cloned filesystem")
    former = origin.partition("@")[0]
    moved = [one for one in state.snapshots(former) if state.rows[one]["txg"] <= state.rows[origin]["txg"]]
    for one in moved:
        to = f"{name}@{one.partition('@')[2]}"
        if to in state.rows:
            at = to.partition("@")[2]
            raise Refused(f"cannot promote '{name}': conflicting snapshot '{at}' from parent '{origin}'")
    for one in moved:
        state.rows[f"{name}@{one.partition('@')[2]}"] = state.rows.pop(one)
    row["origin"], state.rows[former]["origin"] = state.rows[former]["origin"], row["origin"]


def listed(state: State, words: list[str]) -> Iterator[str]:
    given, (name,) = _flags(words, "Hp", "dtoS")
    state.row(name)
    deepest = int(given.get("d", "0"))
    kind = given.get("t", "filesystem")
    found = [name] if kind == "filesystem" else []
    if "d" in given:
        for other in state.rows:
            if (kind == "snapshot") == ("@" in other) and other != name and _is_in(other.replace("@", "/"), name):
                found += [other] if other.removeprefix(name).replace("@", "/").count("/") <= deepest else []
    if "S" in given:
        found.sort(key=lambda other: -int(state.value(other, given["S"])))
    else:
        found.sort()
    for other in found:
        yield "\t".join(state.value(other, key) for key in given["o"].split(","))


def get(state: State, words: list[str]) -> Iterator[str]:
    _given, (key, name) = _flags(words, "Hp", "o")
    state.row(name)
    yield state.value(name, key)


def pools(_state: State, words: list[str]) -> Iterator[str]:
    _given, (name,) = _flags(words, "H", "o")
    if name != POOL:
        raise Refused(f"cannot open '{name}': no such pool")
    yield "ONLINE"


COMMANDS: dict[str, Callable[[State, list[str]], Iterator[str] | None]] = {
    "zfs create": create,
    "zfs snapshot": snapshot,
    "zfs clone": clone,
    "zfs destroy": destroy,
    "zfs rename": rename,
    "zfs promote": promote,
    "zfs list": listed,
    "zfs get": get,
    "zpool list": pools,
}


def _flags(words: list[str], plain: str, valued: str = "") -> tuple[dict[str, str], list[str]]:
    given: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        for flag in rest.pop(0)[1:]:
            if flag not in plain + valued:
                raise Refused(f"the scripted zfs has no -{flag} here", 2)
            given[flag] = rest.pop(0) if flag in valued else ""
    return given, rest


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    own, rest = {}, list(words)
    while rest and rest[0] == "-o":
        key, _, value = rest[1].partition("=")
        own[key] = value
        del rest[:2]
    return own, rest


def _check_new(state: State, name: str, own: dict[str, str]) -> None:
    for character in name:
        if not (character.isascii() and (character.isalnum() or character in "-_.:/ ")):
            raise Refused(f"cannot create '{name}': invalid character {character} in name")
    if name in state.rows:
        raise Refused(f"cannot create '{name}': dataset already exists")
    if name.rpartition("/")[0] not in state.rows:
        raise Refused(f"cannot create '{name}': parent does not exist")
    quota = own.get("quota", "0")
    if not quota.isdigit():
        raise Refused(f"cannot create '{name}': bad numeric value '{quota}'")


# -- the files


def _make_folder(state: State, row: Row, already: int) -> None:
    folder = state.data(row).parent
    folder.mkdir(parents=True)
    if quota := int(row["own"].get("quota", "0")):
        _mount("tmpfs", folder, "tmpfs", 0, f"size={quota + already},mode=755")
    state.data(row).mkdir()


def _size(folder: Path) -> int:
    done = subprocess.run(["du", "-s", "-B1", str(folder)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def _copy(source: Path, to: Path) -> None:
    done = subprocess.run(["cp", "-a", f"{source}/.", str(to)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"the scripted zfs cannot copy: {done.stderr}")


def _unmount(state: State, row: Row, about: str) -> None:
    """Unmount a dataset where it is mounted in this namespace; then nobody may have it."""
    for point in reversed(_points(Path("/proc/self/mountinfo"), row["number"])):
        if _LIBC.umount2(os.fsencode(point), 0):
            raise Refused(f"cannot unmount '{point}': pool or dataset is busy")
    if _is_held(row["number"], state.data(row).stat()):
        raise Refused(f"cannot destroy '{about}': dataset is busy")


def _points(mountinfo: Path, number: str) -> list[str]:
    """Where the folder of this number is bound, other than by a file system of its own."""
    lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    return [line.split()[4] for line in lines if line.split()[3].endswith(f"/{number}")]


def _is_held(number: str, top: os.stat_result) -> bool:
    namespaces = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            namespace = os.readlink(f"/proc/{process}/ns/mnt")
            if namespace not in namespaces and _points(Path(f"/proc/{process}/mountinfo"), number):
                return True
            namespaces.add(namespace)
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                with suppress(OSError):
                    if os.path.samestat(os.stat(f"/proc/{process}/fd/{descriptor}"), top):
                        return True
    return False


def _mount(source: str, target: Path, kind: str, flags: int, data: str) -> None:
    words = [os.fsencode(word) for word in (source, str(target), kind)]
    if _LIBC.mount(words[0], words[1], words[2], flags, data.encode() or None):
        raise OSError(ctypes.get_errno(), f"mount {kind}", str(target))


def main(words: Sequence[str]) -> int:
    program, place, *rest = words
    command = COMMANDS.get(" ".join([program, *rest[:1]]))
    try:
        if command is None:
            raise Refused(f"unrecognized command '{rest[0]}'", 2)
        with State(Path(place)).held() as state:
            for line in command(state, rest[1:]) or ():
                print(line)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return refusal.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
