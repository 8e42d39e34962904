"""What operations cost, counted and not timed: system calls for each file, writes of records, modules at start-up.

These stand in for the benchmarks where the clock cannot be trusted. A number that rises here is time that somebody will
measure; one that falls may be lowered here, too.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import layerhold
from layerhold.records.codec import encode
from layerhold.tree.files import write_atomic
from layerhold.values import Value
from tests import disks, inputs, programs
from tests.test_architecture import FREE, SOURCE, loaded_by

# -- system calls for each file

FEW, MANY = 200, 700
IN_A_DIRECTORY = 50
SLACK = 0.15  # of a call: what directories take, divided among the files in them

OPEN = (
    "import glob, os, sys, layerhold\n"
    "store = layerhold.Store.open(graphroot=sys.argv[1] + '/g', runroot=sys.argv[1] + '/r', driver='vfs')\n"
)
READ_OUT = "with store.layers['x'].diff(compression=0) as tar:\n    while tar.read(1 << 20):\n        pass\n"
# In the order in which they are done to one store.
OPERATIONS = {
    "apply": "with open(sys.argv[2], 'rb') as tar:\n    store.layers.create(diff=tar, names=['x'])\n",
    "diff": READ_OUT,
    "copy": "store.layers.create(store.layers['x'], names=['y'])\nstore.layers['y'].delete()\n",
    "changes": "store.layers['x'].changes()\n",
    "diff size": "store.layers['x'].diff_size()\n",
    "diff generated": f"for name in glob.glob(sys.argv[1] + '/g/*/*.tar-split.gz'):\n    os.unlink(name)\n{READ_OUT}",
    "delete": "store.layers['x'].delete()\n",
}
# For each file; other calls come for each directory or block at most.
CALLS = {
    "apply": {"open": 1, "write": 1, "utimensat": 1, "close": 1, "fchmod": 1},
    "diff": {"stat": 1, "read": 1, "open": 1, "close": 1},
    "copy": {
        **dict.fromkeys(("stat", "read", "flistxattr", "write", "fchown", "fchmod", "utimensat", "unlinkat"), 1),
        "open": 2,
        "close": 2,
    },
    "changes": {},
    "diff size": {"stat": 1},
    "diff generated": {"stat": 1, "read": 1, "flistxattr": 1, "open": 1, "close": 1},
    "delete": {"unlinkat": 1},
}
CALLS_OF_A_LINK = {"symlinkat": 1, "fchownat": 1, "utimensat": 1}
# The same thing under other names, as the C library or the kernel has it.
SAME = {
    **dict.fromkeys(("stat", "lstat", "fstat", "newfstatat", "fstatat64", "statx"), "stat"),
    **dict.fromkeys(("open", "openat", "openat2"), "open"),
}
# How often threads wait for each other is chance, and memory is got as the allocator likes.
CHANCE = frozenset({"futex", "sched_yield", "mmap", "munmap", "mremap", "madvise", "brk", "mprotect"})


@pytest.fixture(scope="module")
def calls_for_a_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """The system calls of each operation for each file: what layers of many and of few files differ by."""
    few, many = (_calls(tmp_path_factory.mktemp("costs"), files) for files in (FEW, MANY))
    return {
        operation: {call: (count - few[operation][call]) / (MANY - FEW) for call, count in many[operation].items()}
        for operation in OPERATIONS
    }


def _calls(folder: Path, files: int) -> dict[str, Counter[str]]:
    """Do all operations in processes of their own, with a layer of so many files."""
    tar = folder / "layer.tar"
    tar.write_bytes(_layer(files))
    return {name: _counted(OPEN + script, folder, tar) for name, script in OPERATIONS.items()}


def _counted(script: str, folder: Path, tar: Path) -> Counter[str]:
    if not shutil.which("strace"):
        raise programs.Unavailable("strace is not installed (Debian: apt-get install strace)")
    log = folder / "calls"
    script = f"import sys\nsys.path.insert(0, {str(SOURCE)!r})\n{script}"  # for -I leaves out PYTHONPATH
    strace = ["strace", "-f", "-qq", "-c", "-U", "name,calls", "-o", str(log)]
    subprocess.run([*strace, sys.executable, "-I", "-c", script, str(folder), str(tar)], check=True)
    counted: Counter[str] = Counter()
    for name, number in (line.split() for line in log.read_text().splitlines() if len(line.split()) == 2):
        if number.isdigit() and name not in CHANCE | {"total"}:
            counted[SAME.get(name, name)] += int(number)
    return counted


def _layer(files: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(files):
            folder = f"d{number // IN_A_DIRECTORY}"
            if number % IN_A_DIRECTORY == 0:
                tar.addfile(_mine(inputs.entry(folder, tarfile.DIRTYPE, 0o755)))
            tar.addfile(_mine(inputs.entry(f"{folder}/f{number}", size=100)), io.BytesIO(b"x" * 100))
    return out.getvalue()


def _links(count: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(count):
            folder = f"d/d/d{number // IN_A_DIRECTORY}"
            if number % IN_A_DIRECTORY == 0:
                tar.addfile(_mine(inputs.entry(folder, tarfile.DIRTYPE, 0o755)))
            tar.addfile(_mine(inputs.entry(f"{folder}/l{number}", tarfile.SYMTYPE, 0o777, linkname="to")))
    return out.getvalue()


def _mine(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid, member.gid = os.getuid(), os.getgid()
    return member


@pytest.mark.parametrize("operation", OPERATIONS)
def test_system_calls_for_a_file(operation: str, calls_for_a_file: dict[str, dict[str, float]]) -> None:
    most = CALLS[operation]
    over = {call: n for call, n in calls_for_a_file[operation].items() if n > most.get(call, 0) + SLACK}
    assert not over, f"{operation}: calls for each file beyond {most}: {over}"


def test_system_calls_for_a_symbolic_link(tmp_path: Path) -> None:
    counted = []
    for links in (FEW, MANY):
        folder = tmp_path / str(links)
        folder.mkdir()
        tar = folder / "layer.tar"
        tar.write_bytes(_links(links))
        counted.append(_counted(OPEN + OPERATIONS["apply"], folder, tar))
    few, many = counted
    calls = {call: (count - few[call]) / (MANY - FEW) for call, count in many.items()}
    over = {call: n for call, n in calls.items() if n > CALLS_OF_A_LINK.get(call, 0) + SLACK}
    assert not over, f"calls for each link beyond {CALLS_OF_A_LINK}: {over}"


# -- writes of records


class Written:
    """The files that were written, and the records that were encoded for them."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.records: list[Value] = []

    @contextmanager
    def during(self) -> Iterator[Written]:
        """Forget what came before."""
        self.files.clear()
        self.records.clear()
        yield self


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    found = Written()

    def encode_noted(record: Value) -> bytes:
        found.records.append(record)
        return encode(record)

    def write_noted(path: str, content: bytes, **how: bool) -> os.stat_result:
        found.files.append(os.path.basename(path))
        return write_atomic(path, content, **how)

    monkeypatch.setattr("layerhold.records.editor.encode", encode_noted)
    monkeypatch.setattr("layerhold.records.table.write_atomic", write_noted)
    return found


@pytest.fixture
def store(tmp_path: Path) -> layerhold.Store:
    """A store with twenty layers, opened anew."""

    def opened() -> layerhold.Store:
        return layerhold.Store.open(graphroot=f"{tmp_path}/g", runroot=f"{tmp_path}/r", driver="vfs")

    with opened().writing() as edit:
        for number in range(20):
            edit.layers.create(names=[f"layer-{number}"])
    return opened()


def _create(store: layerhold.Store) -> None:
    store.layers.create(id="a" * 64)


def _delete(store: layerhold.Store) -> None:
    store.layers["layer-7"].delete()


def _rename(store: layerhold.Store) -> None:
    store.layers["layer-7"].add_names(["other"])


@pytest.mark.parametrize(
    ("change", "writes", "records"),
    [(_create, 2, 2), (_delete, 2, 1), (_rename, 1, 1)],
    ids=["create", "delete", "rename"],
)
def test_writes_of_a_change(
    store: layerhold.Store, written: Written, change: Callable[[layerhold.Store], None], writes: int, records: int
) -> None:
    """A layer that comes or goes costs two writes of its file; only the record that changed is encoded."""
    with written.during():
        change(store)
    assert written.files == ["layers.json"] * len(written.files)
    assert len(written.files) <= writes
    assert len(written.records) <= records
    assert len({record.id for record in written.records}) <= 1  # type: ignore[attr-defined]


COUNT = 10


def test_writes_of_a_batch(store: layerhold.Store, written: Written) -> None:
    with written.during(), store.writing() as edit:
        for number in range(COUNT):
            edit.layers.create(id=f"{number:064x}")
    assert written.files == ["layers.json"]
    assert len(written.records) <= COUNT
    with written.during(), store.writing() as edit:
        for number in range(COUNT):
            edit.layers[f"{number:064x}"].delete()
    assert written.files == ["layers.json"]
    assert not written.records


def test_nothing_is_written_where_nothing_changes(store: layerhold.Store, written: Written) -> None:
    with written.during():
        assert len(list(store.layers)) == 20
        with store.writing() as edit:
            assert edit.layers["layer-7"].names == ("layer-7",)
    assert not written.files
    assert not written.records


# -- modules at start-up

# What every command of a small store loads of ours, and what single ones load besides.
EVERY = """
blocks cli cli.flags cli.main cli.output cli.table collection config containers drivers drivers.base drivers.choose
drivers.homes drivers.options errors identifiers ids ids.mappings images layer_files layers layout linux
linux.locks linux.mountinfo lock progress records records.codec records.data records.intents records.json_text
records.model records.rows records.table records.view references settings settings.driver_options store tables tree
tree.durable tree.files tree.trash values
"""
OF_A_COMMAND = {"exists": "cli.create cli.progress cli.things", "layers": "cli.show"}
OF_A_DRIVER = {
    "btrfs": """
        drivers.btrfs drivers.btrfs_quotas drivers.btrfs_subvolumes drivers.home_mount drivers.sizes drivers.whole_trees
        linux.btrfs linux.idmap
    """,
    "vfs": "drivers.vfs drivers.whole_trees",
    "overlay": """
        drivers.home_mount drivers.overlay drivers.overlay_flag drivers.overlay_home drivers.overlay_links
        drivers.overlay_places drivers.overlay_probe drivers.overlay_stack linux.idmap
    """,
}
# Of the standard library, beyond what a bare interpreter and the cheap ones in FREE bring.
STANDARD = frozenset(
    {"__future__", "_json", "gc", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings"}
)


@pytest.mark.parametrize("command", OF_A_COMMAND)
@pytest.mark.parametrize(
    "driver", ["vfs", *(pytest.param(name, marks=pytest.mark.root) for name in ("overlay", "btrfs"))]
)
def test_modules_at_start_up(command: str, driver: str) -> None:
    """Exactly these are loaded: one more is a cost for every command, and is to be meant."""
    with disks.scratch_for(driver) as folder:
        _command(folder, driver, "create-layer", "-n", "x")
        loaded = _command(folder, driver, *{"exists": ["exists", "x"], "layers": ["layers"]}[command])
    ours = {name.removeprefix("layerhold.") for name in loaded if name.startswith("layerhold.")}
    assert ours == {*EVERY.split(), *OF_A_COMMAND[command].split(), *OF_A_DRIVER[driver].split()}
    assert {name for name in loaded - loaded_by(FREE) if name.partition(".")[0] != "layerhold"} <= STANDARD


def _command(folder: Path, driver: str, *words: str) -> set[str]:
    """Run a command in a bare interpreter, and give the modules that are loaded at its end."""
    where = ["--graph", f"{folder}/root", "--run", f"{folder}/run", "--storage-driver", driver]
    return loaded_by(
        "import os; os.environ['CONTAINERS_STORAGE_CONF'] = '/dev/null'\n"
        "from layerhold.cli.main import main\n"
        f"assert not main({[*where, *words]!r})"
    )
