"""Each command on twin stores, ours and that of the newest Go program: what is printed, the status, what is stored.

As root, and once more as an ordinary user in the namespace that Podman makes for him, `podman unshare`. The table of
what is tried is `command_rows.py`. A command of ours without a row there fails. Everything is compared as it is, apart
from what cannot be the same: the folders' names, made-up IDs and link names, times; and the words of help.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from layerhold.cli import table
from tests import disks, programs, stores
from tests.compat import command_rows, each_other
from tests.wheres import HERE, INSIDE, Where, podman_unshare

pytestmark = [pytest.mark.compat, pytest.mark.root]

COMMANDS = {command.names[0]: command for command in table.COMMANDS}
DRIVERS = ("vfs", "overlay")
ALL_DRIVERS = (*DRIVERS, "btrfs")
# Where Go has another answer on btrfs: see test_btrfs.py.
NOT_ON_BTRFS = ("dedup", "status")

# What Go prints in any order.
SORTED = ("changes", "check", "delete", "exists", "metadata")


class Outcome(NamedTuple):
    """What a line did, made comparable."""

    line: str
    status: int
    stdout: str
    stderr: str


class Twin:
    """One of the two stores, and the program that works on it."""

    def __init__(
        self,
        program: list[str],
        executable: str,
        folder: Path,
        *,
        driver: str,
        files: Path,
        settings: tuple[str, ...] = (),
        where: Where = HERE,
    ) -> None:
        self.program = program
        self.executable = executable
        self.folder = folder
        self.driver = driver
        self.files = files
        self.where = where
        self.root = folder / "root"
        self.run_root = folder / "run"
        self.images = folder / "images"
        self.out = folder / "out"
        self.settings = [word.format(images=self.images) for word in settings]

    def on(self, other: Twin) -> Self:
        """The program of this twin, on the store of the other."""
        found = copy.copy(self)
        found.folder, found.root, found.run_root, found.out = other.folder, other.root, other.run_root, other.out
        found.images, found.settings = other.images, other.settings
        return found

    def run(self, line: str) -> Outcome:
        """Run a line of the table."""
        places = {**command_rows.IDS, "files": self.files, "out": self.out, "driver": self.driver}
        words = [word.format(**places) for word in shlex.split(line)]
        given = b""
        if words and words[-1].startswith("<"):
            given = (self.files / words.pop()[1:]).read_bytes()
        store = ["-g", str(self.root), "-R", str(self.run_root), "-s", self.driver]
        done = self.where.run(
            [*self.program, *store, *self.settings, *words],
            stores.QUIET | {"HOME": "/home/of/nobody"},
            executable=self.executable,
            input=given,
            timeout=120,
        )
        return Outcome(line, done.returncode, self.plain(done.stdout), self.plain(done.stderr))

    def plain(self, output: bytes) -> str:
        """Take out of what was printed what cannot be the same on both sides."""
        if b"\0" in output:
            return f"{len(output)} bytes, sha256 {hashlib.sha256(output).hexdigest()}"
        text = output.decode(errors="backslashreplace")
        text = text.replace(str(self.folder), "<store>").replace(str(self.files), "<files>")
        return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>", text)

    def records(self) -> dict[str, str]:
        """The store's records, and what was written into `out`."""
        found = {}
        for root in (self.root, self.run_root, self.images):
            for kind in ("layers", "images", "containers"):
                for file in sorted(root.glob(f"{self.driver}-{kind}/*.json")):
                    found[f"{root.name}/{file.name}"] = self.plain(file.read_bytes()).strip()
        mounts = self.run_root / f"{self.driver}-layers/mountpoints.json"
        rows = json.loads(mounts.read_bytes()) if mounts.exists() else []
        found["run/mountpoints.json"] = self.plain("\n".join(map(str, rows or [])).encode())
        for file in sorted(self.out.iterdir()):
            found[f"out/{file.name}"] = repr(unpacked(file.read_bytes()))
        return {name: text for name, text in found.items() if text not in ("", "[]", "null")}


def unpacked(content: bytes) -> bytes:
    """Compressors may differ in what they write; what comes out of it may not."""
    return b"gzip:" + gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def known_ids(text: str, seen: dict[str, str]) -> str:
    """Number the IDs that the programs made up, in the order in which they come up."""

    def name(found: re.Match[str]) -> str:
        id = found[0]
        return id if len(set(id)) == 1 else seen.setdefault(id, f"<id {len(seen)}>")

    return re.sub(r"(?<![0-9a-f:])[0-9a-f]{64}(?![0-9a-f])", name, text)


def own_words(outcome: Outcome) -> Outcome:
    """An outcome of which only is compared that there is an error, since each program has its own words for it."""
    return outcome._replace(
        stdout=re.sub("(?<=: ).+", "<why>", outcome.stdout), stderr="<why>" if outcome.stderr else ""
    )


def comparable(text: str, line: str) -> str:
    """What a line printed, without what is free to differ: words of help, the version, the order where Go has none."""
    text = outline(re.sub('time="<time>" level=.*\n', "", text))  # Go's log lines; ours has none
    if line.startswith("version"):
        return re.sub(r"\d+\.\d+\.\d+", "<version>", text)
    if line.startswith("changes -j"):
        return "\n".join(sorted(re.findall(r"\{.*?\}(?=,\{|\])", text))) or text
    if line.startswith("storage-layers"):  # sorted, and among them made-up IDs
        ids = re.findall(r"\b[0-9a-f]{64}\b", text)
        return "\n".join([*(id for id in ids if len(set(id)) == 1), f"and others, {len(ids)} in all"]) if ids else text
    return "\n".join(sorted(text.split("\n"))) if line.startswith(SORTED) else text


def in_order(text: str) -> str:
    """Sort lines: mounts, of which each program has its own order. Records are one line, and keep theirs."""
    return "\n".join(sorted(text.split("\n")))


def outline(text: str) -> str:
    """Keep of help which commands and flags there are; the words for them are each program's own."""
    kept = []
    lines = iter(text.split("\n"))
    for line in lines:
        if usage := re.match(r"Usage: \S+ \S+", line):
            kept.append(usage[0])
            kept += sorted(filter(None, (offered(row) for row in lines)))
        elif flag := offered(line):
            kept.append(flag)
        elif not re.match("  --", line):
            kept.append(line)
    return "\n".join(kept)


def offered(line: str) -> str:
    """The flag or the command that a line of help is about, if it is one of ours, or the error behind the help."""
    flag = re.match(r"  (--[a-z][-a-z]*)(, --?[a-z]\S*)*", line)
    if flag:
        return flag[0]
    command = re.match(r"  ([a-z][-a-z]*) +[A-Z]", line)
    if command:
        return command[1] if command[1] in COMMANDS else ""
    return line if re.match("Usage|Options|Commands|flag", line) else ""


# -- the stores


def tar(*members: tuple[str, bytes | str | None, int]) -> bytes:
    """A tar of (name, content, mode): a directory has no content, a symbolic link a text."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content, mode in members:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = mode, 1_600_000_000
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return file.getvalue()


def write_inputs(folder: Path) -> None:
    folder.mkdir()
    base = tar(
        ("etc", None, 0o755),
        ("etc/passwd", b"root:x:0:0\n", 0o644),
        ("etc/gone", b"soon\n", 0o600),
        ("bin", None, 0o755),
        ("bin/sh", b"\x7fELF" + bytes(5000), 0o4755),
        ("bin/ash", "sh", 0o777),
        ("var", None, 0o755),
        ("var/spool", None, 0o1777),
    )
    top = tar(
        ("etc", None, 0o755),
        ("etc/passwd", b"root:x:0:0\nuser:x:1:1\n", 0o644),
        ("etc/.wh.gone", b"", 0o644),
        ('etc/odd "name"\t\u00e4\u2028', b"odd", 0o640),
        ("srv", None, 0o755),
        ("srv/data", bytes(range(256)) * 40, 0o644),
    )
    packed = tar(("bin", None, 0o755), ("bin/.wh..wh..opq", b"", 0o644), ("bin/true", b"#!/bin/sh\n", 0o755))
    contents = {
        "base.tar": base,
        "top.tar": top,
        "packed.tar.gz": gzip.compress(packed, mtime=0),
        "cut.tar": base[:3000],
        "cut.tar.gz": gzip.compress(base, mtime=0)[:-40],
        "manifest": b'{"schemaVersion":2,"layers":[]}',
        "config": b'{"os": "linux", "author": "A <a@b> & C"}\n',
        "null": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)


class Template(NamedTuple):
    """The two stores that every row starts with a copy of, and what it takes to run there.

    `settings` are global flags for both; `{images}` in them is a folder beside each store.
    """

    folder: Path
    files: Path
    driver: str
    settings: tuple[str, ...] = ()
    where: Where = HERE

    def twins(self, folder: Path) -> tuple[Twin, Twin]:
        """Ours and Go's, in a new folder."""
        shutil.rmtree(folder, ignore_errors=True)
        disks.copy(self.folder, folder, self.driver)
        return self.ours(folder), self.go(folder)

    def ours(self, folder: Path) -> Twin:
        """Our store in `folder`, for our command under the name of Go's, which is in what it prints."""
        words = [self.where.python, *self.where.isolated, "-c", programs.OURS_AS_GO]
        return self._twin(words, self.where.python, folder / "ours")

    def go(self, folder: Path) -> Twin:
        """Go's store in `folder`, for Go's program."""
        return self._twin(["containers-storage"], self.where.go(), folder / "go")

    def _twin(self, program: list[str], executable: str, folder: Path) -> Twin:
        twin = Twin(
            program,
            executable,
            folder,
            driver=self.driver,
            files=self.files,
            settings=self.settings,
            where=self.where,
        )
        for path in (twin.folder, twin.out):
            path.mkdir(parents=True, exist_ok=True)
            self.where.give(path)
        return twin


@pytest.fixture(scope="session", params=[*ALL_DRIVERS, *(f"{driver}{INSIDE}" for driver in ALL_DRIVERS)])
def template(request: pytest.FixtureRequest) -> Iterator[Template]:
    programs.storage()
    driver = request.param.removesuffix(INSIDE)
    if driver == request.param:
        with disks.scratch_for(driver) as folder:
            write_inputs(folder / "files")
            yield made(Template(folder / "template", folder / "files", driver))
        return
    with podman_unshare(driver) as (where, folder):
        write_inputs(folder / "files")
        yield made(Template(folder / "template", folder / "files", driver, where=where))


def made(template: Template, lines: str = command_rows.TEMPLATE) -> Template:
    """Make both stores."""
    disks.new_folder(template.folder, template.driver)
    template.where.give(template.folder)
    for twin in (template.ours(template.folder), template.go(template.folder)):
        for line in lines.strip().splitlines():
            outcome = twin.run(line)
            assert outcome.status == 0, outcome
    return template


def compare(template: Template, folder: Path, row: str) -> list[str]:
    """Run a row on both stores; give what differs."""
    ours, go = template.twins(folder)
    seen_ours: dict[str, str] = {}
    seen_go: dict[str, str] = {}
    found = []
    try:
        for line in row.removeprefix("~ ").split(" ; "):
            mine, theirs = ours.run(line), go.run(line)
            if row.startswith("~ ") and mine.status and theirs.status:
                mine, theirs = own_words(mine), own_words(theirs)
            for field in ("status", "stdout", "stderr"):
                one = known_ids(comparable(str(getattr(mine, field)), line), seen_ours)
                other = known_ids(comparable(str(getattr(theirs, field)), line), seen_go)
                if one != other:
                    found.append(f"{line}: {field}\n  ours: {one!r}\n  Go:   {other!r}")
        my_records, their_records = ours.records(), go.records()
        for name in sorted(my_records.keys() | their_records.keys()):
            one = in_order(known_ids(my_records.get(name, ""), seen_ours))
            other = in_order(known_ids(their_records.get(name, ""), seen_go))
            if one != other:
                found.append(f"{row}: {name}\n  ours: {one}\n  Go:   {other}")
    finally:
        stores.clear(folder)
    return found


def rows_of(command: str, template: Template) -> list[str]:
    """The rows of a command that are tried on a driver, in a place."""
    if template.driver == "btrfs" and command in NOT_ON_BTRFS:
        return []
    if template.where is not HERE and template.driver != "overlay" and command in command_rows.RECORDS_ALONE.split():
        return []
    rows = [row.strip() for row in command_rows.ROWS[command].strip().splitlines()]
    if template.where is HERE and template.driver == DRIVERS[0] and command != "unshare":
        rows.append(command_rows.FOR_EACH.replace("{command}", command))  # what nothing has a part in is asked once.
    return rows


# -- the tests


def test_every_command_has_rows() -> None:
    assert COMMANDS.keys() == command_rows.ROWS.keys()


def test_the_words_are_those_of_go() -> None:
    """Each command and each flag of Go's is ours, and no other is."""
    go_commands = {row.split()[0] for row in go_help() if re.match(r"  [a-z]", row)}
    assert COMMANDS.keys() == go_commands
    for name, command in COMMANDS.items():
        flags = {flag for row in go_help(name) for flag in re.findall(r"--[a-z][-a-z0-9]*", row.split("   ")[0])}
        shared = [flag for flag in (*command.flags, *table.GLOBAL) if not flag.own]
        ours = {f"--{name}" for flag in shared for name in flag.names if len(name) > 1}
        assert ours == flags, name


def go_help(*command: str) -> list[str]:
    """The lines of Go's help."""
    done = subprocess.run([programs.storage(), *command, "--help"], check=False, capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("  ")]


def test_podman_unshare_is_the_namespace_of_an_ordinary_user(template: Template) -> None:
    maps = template.where.run(["cat", "/proc/self/uid_map"], {}).stdout.split()
    owner = template.folder.stat().st_uid
    assert [int(word) for word in maps[:3]] == ([0, owner, 1] if template.where is not HERE else [0, 0, 4294967295])
    assert (owner == 0) == (template.where is HERE)


@pytest.mark.parametrize("command", command_rows.ROWS)
def test_command(template: Template, command: str) -> None:
    folder = template.folder.with_name(f"{command}-{template.driver}")
    found = [difference for row in rows_of(command, template) for difference in compare(template, folder, row)]
    assert not found, "\n".join(found)


def test_global_options(template: Template) -> None:
    if template.driver != DRIVERS[0]:  # the words are no driver's
        return
    folder = template.folder.with_name(f"global-{template.driver}")
    rows = command_rows.GLOBAL.strip().splitlines()
    found = [difference for row in rows for difference in compare(template, folder, row)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("maker", ["ours", "go"])
def test_each_reads_what_the_other_made(template: Template, maker: str) -> None:
    pair = dict(zip(("ours", "go"), template.twins(template.folder.with_name(f"read-{template.driver}")), strict=True))
    try:
        each_other.read(pair.pop(maker), *pair.values())
    finally:
        stores.clear(template.folder.with_name(f"read-{template.driver}"))
