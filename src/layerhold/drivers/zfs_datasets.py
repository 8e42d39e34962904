"""Datasets of zfs, by its own commands: the only module that calls `zfs` and `zpool`.

    <top>/<id>                                a layer; its mountpoint is `legacy`, as Go's program has it
    <top>/layerhold-aside-<home>-<n>-<m>      one that is being made, or is to be destroyed
    <top>/<any>@layerhold-aside-...           the snapshot that a layer was cloned from, which goes with its last clone

Names are those below the top, which is a dataset of the user's. Others may be below it as well: what is no layer is not
touched. An error has the command's own words.
"""

from __future__ import annotations

import subprocess

from layerhold.errors import DriverError, DriverPrerequisites

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ASIDE = "layerhold-aside-"
_MARK = "layerhold:layer"  # a property of the layers that are made here
_LEGACY = "legacy"
_HEX = frozenset("0123456789abcdef")
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:")
_LONGEST = 255  # of a whole name (ZFS_MAX_DATASET_NAME_LEN)


class CommandFailed(DriverError):
    """A command did not do what it was told. `words` are its own."""

    def __init__(self, command: Sequence[str], words: str) -> None:
        self.words = words
        super().__init__(f"{' '.join(command)}: {words}")

    def says(self, *parts: str) -> bool:
        """Tell whether one of the texts is in its words."""
        return any(part in self.words for part in parts)

    @property
    def is_missing(self) -> bool:
        """Whether there is no such dataset."""
        return self.says("does not exist", "could not find any snapshots to destroy")

    @property
    def is_busy(self) -> bool:
        """Whether it is in use: mounted in some namespace, or there is a file open in it."""
        return self.says("is busy")


def need_programs() -> None:
    """Raise DriverPrerequisites, in Go's words, where the programs are missing."""
    import shutil

    for program in ("zfs", "zpool"):
        if not shutil.which(program):
            hint = "install the programs of OpenZFS (Debian: zfsutils-linux), or name the folder that has them in PATH"
            raise DriverPrerequisites(f"the '{program}' command is not available", hint=hint)


def _run(*command: str) -> list[list[str]]:
    """Run a command; give what it prints, by lines and columns. Raises CommandFailed, OSError."""
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        words = done.stderr.decode(errors="replace").partition("\nusage:")[0]
        said = "; ".join(line.strip() for line in words.splitlines() if line.strip())
        raise CommandFailed(command, said or f"ended with {done.returncode}, and said nothing")
    return [line.split("\t") for line in done.stdout.decode(errors="replace").splitlines()]


class Datasets:
    """The datasets below the one of the name `top`."""

    def __init__(self, top: str) -> None:
        self.top = top

    def full(self, name: str) -> str:
        """Give the whole name of a dataset."""
        return f"{self.top}/{name}"

    def can_be(self, name: str) -> bool:
        """Tell whether a layer can have this name: zfs takes few letters."""
        fits = len(self.top) + 1 + len(name) < _LONGEST
        return fits and bool(name) and _LETTERS.issuperset(name) and not name.startswith((".", ASIDE))

    # --- what there is

    def names(self) -> tuple[list[str], list[str]]:
        """List the layers, and what is aside. Raises CommandFailed if the top is not there.

        Go's program gives its layers no mark: what it names has the form of an ID.
        """
        columns = ("-o", f"name,mountpoint,{_MARK}")
        layers, aside = [], []
        for whole, mountpoint, mark in _run("zfs", "list", "-Hp", "-d", "1", "-t", "filesystem", *columns, self.top):
            name = whole.removeprefix(f"{self.top}/")
            if whole == self.top or mountpoint != _LEGACY:
                continue
            if name.startswith(ASIDE):
                aside.append(name)
            elif _is_layer(name, mark):
                layers.append(name)
        return layers, aside

    def is_layer(self, name: str) -> bool:
        """Tell whether a dataset is a layer for certain: what else may be there is not to be replaced or removed."""
        return self._is(name, certain=True)

    def exists(self, name: str) -> bool:
        """Tell whether there is a dataset that can be a layer: one that zfs does not mount by itself."""
        return self._is(name, certain=False)

    def _is(self, name: str, *, certain: bool) -> bool:
        columns = ("-o", f"mountpoint,{_MARK}")
        try:
            ((mountpoint, mark),) = _run("zfs", "list", "-Hp", "-t", "filesystem", *columns, self.full(name))
        except CommandFailed as error:
            if error.is_missing:
                return False
            raise
        return mountpoint == _LEGACY and (not certain or _is_layer(name, mark))

    def quota(self, name: str) -> int:
        """Say how many bytes a dataset may hold; 0 is as many as there is room for."""
        return int(_run("zfs", "get", "-Hp", "-o", "value", "quota", self.full(name))[0][0])

    def state(self) -> tuple[str, str, str, str]:
        """Say what of the top is used, what is available, its quota and its compression."""
        used, available, quota, compression = _run(
            "zfs", "list", "-Hp", "-o", "used,available,quota,compression", self.top
        )[0]
        return used, available, quota, compression

    def health(self) -> str:
        """Say how the pool is ("ONLINE")."""
        return _run("zpool", "list", "-H", "-o", "health", self.pool)[0][0]

    @property
    def pool(self) -> str:
        """The pool that the top is in."""
        return self.top.partition("/")[0]

    # --- changing it

    def create(self, name: str, *, quota: int = 0) -> None:
        """Make an empty dataset."""
        _run("zfs", "create", *_of_layers(quota), self.full(name))

    def clone(self, source: str, name: str, *, quota: int = 0) -> None:
        """Make a dataset with all that `source` has now."""
        snapshot = f"{self.full(source)}@{name}"
        _run("zfs", "snapshot", snapshot)
        try:
            _run("zfs", "clone", *_of_layers(quota), snapshot, self.full(name))
        finally:
            _run("zfs", "destroy", "-d", snapshot)  # when its last clone goes

    def drop_snapshot(self, source: str, name: str) -> None:
        """Destroy the snapshot that `name` was to be cloned from, if it is still there."""
        try:
            _run("zfs", "destroy", "-d", f"{self.full(source)}@{name}")
        except CommandFailed as error:
            if not error.is_missing:
                raise

    def rename(self, name: str, to: str) -> None:
        """Give a dataset another name; one that is mounted stays so."""
        _run("zfs", "rename", self.full(name), self.full(to))

    def destroy(self, name: str) -> bool:
        """Destroy a dataset and its snapshots, if it is there; False if it is in use.

        What was cloned from it (a copy of a layer stands alone) gets the snapshots that it shares with it before. A
        clone that somebody made elsewhere is use.
        """
        while True:
            try:
                _run("zfs", "destroy", "-r", self.full(name))
            except CommandFailed as error:
                if error.is_missing:
                    return True
                if error.says("has dependent clones") and self._promote_clone_of(name):
                    continue
                if error.is_busy or error.says("has dependent clones"):
                    return False
                raise
            return True

    def _promote_clone_of(self, name: str) -> bool:
        """Have a clone of the newest snapshot that has one own it, and the older ones; False if there is none.

        Snapshots without clones go before: those that somebody takes regularly have one name everywhere.
        """
        columns = ("-o", "name,clones", "-S", "createtxg")
        rows = _run("zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", *columns, self.full(name))
        bare = [snapshot.partition("@")[2] for snapshot, clones in rows if clones in ("", "-")]
        ours = [clone for _, clones in rows for clone in clones.split(",") if clone.rpartition("/")[0] == self.top]
        if bare:
            _run("zfs", "destroy", f"{self.full(name)}@{','.join(bare)}")
        if not ours:
            return False
        try:
            _run("zfs", "promote", ours[0])
        except CommandFailed as error:
            if not error.says("conflicting snapshot"):
                raise
            return False  # one that somebody cloned elsewhere: then that clone is use
        return True


def _is_layer(name: str, mark: str) -> bool:
    return mark != "-" or (len(name) == 64 and _HEX.issuperset(name))


def _of_layers(quota: int) -> list[str]:
    limit = ["-o", f"quota={quota}"] if quota else []
    return ["-o", f"mountpoint={_LEGACY}", "-o", f"{_MARK}=yes", *limit]
