"""`config` prints what Go's program prints, for root and for an ordinary user, from every source of settings.

The files are bound over /etc/containers and /usr/share/containers in a mount namespace of the call's own. Go's program
opens a store before it prints; flags before the command give it one, and change nothing of what it prints.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import programs, stores
from tests.users import OrdinaryUser, a_user

pytestmark = [pytest.mark.compat, pytest.mark.root]

SHARE, ETC = "/usr/share/containers", "/etc/containers"
BIND = f'mount --bind "$1" {SHARE} && mount --bind "$2" {ETC} && shift 2 && exec "$@"'

EVERY_KEY = """\
[storage]
driver = "overlay2"
driver_priority = ["vfs", "overlay"]
graphroot = "$HOME/./$UID/${UID}/$UIDx/graph"
runroot = "/tmp/../tmp/$UID/$NOT_SET/run"
imagestore = "/images/$UID"
rootless_storage_path = "/tmp/rootless"
transient_store = true
[storage.options]
additionalimagestores = ["/a", "/b"]
additionallayerstores = ["/layers:ref"]
imagestore = "/unused"
size = "10G"
ostree_repo = "/ostree"
skip_mount_home = "true"
mount_program = "/bin/true"
mountopt = "nodev"
ignore_chown_errors = "true"
force_mask = 0o700
use_composefs = "true"
remap-uids = "0:1000:10"
remap-user = "someone"
root-auto-userns-user = "auto"
auto-userns-min-size = 1000
auto-userns-max-size = 2000
pull_options = { z = "<&>", enable_partial_images = "true" }
disable-volatile = true
[storage.options.thinpool]
basesize = "10G"
[storage.options.btrfs]
min_space = "1G"
size = "2G"
[storage.options.overlay]
ignore_chown_errors = "true"
mountopt = "nosuid"
mount_program = "/bin/false"
size = "1"
inodes = "2"
skip_mount_home = "true"
use_composefs = "false"
force_mask = "shared"
sync = "none"
[storage.options.vfs]
ignore_chown_errors = "true"
sync = "none"
[storage.options.zfs]
mountopt = "nodev"
fsname = "pool"
size = "3"
[storage.no-such-table]
key = 1
"""


class Scene(NamedTuple):
    """Files below `share`, `etc` and `own` (the user's settings), with `files` as text, and variables."""

    files: Mapping[str, str]
    env: Mapping[str, str] = {}


def storage(line: str) -> str:
    """A file with a line for its table [storage]."""
    return f"[storage]\n{line}\n"


def drivers(*paths: str) -> dict[str, str]:
    """Files that each name another driver."""
    return {path: storage(f'driver = "{path}"') for path in paths}


def lists(*texts: str) -> dict[str, str]:
    """Drop-ins that each have a list of image stores."""
    return {
        f"etc/storage.conf.d/{number}.conf": f"storage.options.additionalimagestores = {text}"
        for number, text in enumerate(texts)
    }


KINDS = ("storage.conf.d", "storage.rootful.conf.d", "storage.rootless.conf.d", "storage.rootless.conf.d/{uid}")
PLACES = tuple(f"{place}/{kind}" for place in ("etc", "own") for kind in KINDS)

SCENES = {
    "nothing": Scene({}),
    "every key": Scene({"etc/storage.conf": EVERY_KEY}),
    "first main file": Scene(drivers("share/storage.conf", "etc/storage.conf")),
    "own main file": Scene(drivers("share/storage.conf", "etc/storage.conf", "own/storage.conf")),
    "own main file elsewhere": Scene(drivers("etc/storage.conf", "own/storage.conf"), {"XDG_CONFIG_HOME": "/nowhere"}),
    "drop-ins by name": Scene(
        {
            "etc/storage.conf": storage('driver = "main"\nrunroot = "/tmp/main"'),
            "share/storage.conf.d/30.conf": storage('driver = "30"'),
            "etc/storage.conf.d/20.conf": storage('driver = "20"\ngraphroot = "/tmp/20"'),
            "own/storage.conf.d/10.conf": storage('driver = "10"\nimagestore = "/10"'),
            "etc/storage.conf.d/40.txt": storage('driver = "40"'),
            "etc/storage.conf.d/50.conf/x.conf": storage('driver = "50"'),
        }
    ),
    **{f"drop-in of {path}": Scene(drivers(f"{path}/1.conf")) for path in PLACES},
    "drop-ins of one name": Scene(drivers(*(f"{place}/{kind}/1.conf" for place in ("share", "etc") for kind in KINDS))),
    "drop-ins of one name, own": Scene(drivers(*(f"{place}/{KINDS[0]}/1.conf" for place in ("share", "etc", "own")))),
    "drop-in goes before a special one": Scene(drivers("etc/storage.conf.d/1.conf", f"share/{KINDS[1]}/1.conf")),
    "named file": Scene(
        {**drivers("etc/storage.conf.d/1.conf", "own/storage.conf"), "own/named": storage('runroot = "/named"')},
        {"CONTAINERS_STORAGE_CONF": "{own}/named"},
    ),
    "override": Scene(
        {**drivers("etc/storage.conf.d/1.conf"), "own/last": storage('runroot = "/last"')},
        {"CONTAINERS_STORAGE_CONF_OVERRIDE": "{own}/last"},
    ),
    "named file and override": Scene(
        {"own/named": storage('runroot = "/a"\ngraphroot = "/a"'), "own/last": storage('runroot = "/b"')},
        {"CONTAINERS_STORAGE_CONF": "{own}/named", "CONTAINERS_STORAGE_CONF_OVERRIDE": "{own}/last"},
    ),
    "variables": Scene(
        {"etc/storage.conf": EVERY_KEY}, {"STORAGE_DRIVER": "overlay2", "STORAGE_OPTS": "a=b,,imagestore=/x"}
    ),
    "empty variables": Scene({"etc/storage.conf": EVERY_KEY}, {"STORAGE_DRIVER": "", "STORAGE_OPTS": ""}),
    "lists replace": Scene(lists('["/a"]', '["/b"]')),
    "lists append": Scene(lists('["/a"]', '["/b", {append=true}]', '["/c"]')),
    "lists append no more": Scene(lists('["/a", {append=true}]', '["/b", {append=false}]', '["/c"]')),
    "tables of pulls": Scene(
        {
            "etc/storage.conf.d/1.conf": 'storage.options.pull_options = {a = "1", b = "1"}',
            "etc/storage.conf.d/2.conf": 'storage.options.pull_options = {b = "2"}',
        }
    ),
    "empty table of pulls": Scene({"etc/storage.conf": "[storage.options]\npull_options = {}"}),
    "capitals": Scene({"etc/storage.conf": '[Storage]\nDRIVER = "x"\nOptions.Size = "1"'}),
    "empty texts": Scene(
        {"etc/storage.conf": EVERY_KEY, "etc/storage.conf.d/1.conf": storage('driver = ""\ngraphroot = ""')}
    ),
    "only rootless_storage_path": Scene({"etc/storage.conf": storage('rootless_storage_path = "/tmp/u$UID"')}),
    "runtime directory": Scene({}, {"XDG_RUNTIME_DIR": "{own}", "XDG_DATA_HOME": "/tmp/data"}),
    "no home": Scene({}, {"HOME": "", "XDG_RUNTIME_DIR": "{own}"}),
    "image store is the graph root": Scene(
        {"etc/storage.conf": storage('graphroot = "/tmp/x/../g"\nimagestore = "/tmp/g"')}
    ),
    "named file missing": Scene({}, {"CONTAINERS_STORAGE_CONF": "/no/such/file/x"}),
    "override is a directory": Scene({}, {"CONTAINERS_STORAGE_CONF_OVERRIDE": "/etc"}),
    "main file is a directory": Scene({"etc/storage.conf/x": ""}),
    "directory is a file": Scene({"etc/storage.conf.d": ""}),
    **{
        f"wrong type: {line}": Scene({"etc/storage.conf": f"\n[storage]\n{line}\n"})
        for line in (
            "driver = 5",
            "driver = true",
            "graphroot = [1]",
            "runroot = {}",
            "imagestore = 1.5",
            "driver = 1979-05-27",
            'transient_store = "true"',
            'driver_priority = "vfs"',
            'driver_priority = ["vfs", true]',
            'driver_priority = ["vfs", {a = 1}]',
            'driver_priority = ["vfs", {append = 1}]',
            "options.auto-userns-min-size = -1",
            'options.auto-userns-max-size = "1"',
            "options.force_mask = 4294967296",
            "options.skip_mount_home = true",
            "options.overlay.size = 1",
            "options.pull_options = { a = true }",
        )
    },
}  # fmt: skip


class Caller:
    """Someone who calls both programs: root, or an ordinary user."""

    def __init__(self, folder: Path, user: OrdinaryUser | None) -> None:
        self.folder = folder
        self.user = user
        self.uid = user.uid if user else 0
        self.home = folder / "home"
        self.own = self.home / ".config/containers"
        self.go = folder / "containers-storage"
        shutil.copy2(programs.storage(), self.go)

    def prepare(self, scene: Scene) -> None:
        """Write the files of a scene."""
        places = {"share": self.folder / "share", "etc": self.folder / "etc", "own": self.own}
        for folder in (self.folder / "share", self.folder / "etc", self.home):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self.own.mkdir(parents=True)
        for name, text in scene.files.items():
            place, _, rest = name.format(uid=self.uid).partition("/")
            path = places[place] / rest
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        subprocess.run(["chown", "-R", f"{self.uid}:{self.uid}", str(self.home)], check=True)

    def call(self, program: str, scene: Scene) -> tuple[int, str]:
        """Run `config` of a program, and give the status and what is on standard output."""
        store = ["-g", f"{self.home}/g", "-R", f"{self.home}/r", "-s", "vfs"]
        python = self.user.python if self.user else sys.executable
        as_user = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"] if self.user else []
        ours = [python, "-c", programs.OURS_AS_GO, *store, "config"]
        go = [str(self.go), *(["--unshare=false"] if self.user else []), *store, "config"]
        code = self.user.code if self.user else Path(__file__).resolve().parents[2] / "src"
        env = {"HOME": str(self.home), "PATH": os.environ["PATH"], "PYTHONPATH": str(code), "TMPDIR": str(self.home)}
        env |= {name: value.format(own=self.own) for name, value in scene.env.items()}
        bind = ["unshare", "--mount", "sh", "-c", BIND, "sh", f"{self.folder}/share", f"{self.folder}/etc"]
        done = subprocess.run(
            [*bind, *as_user, *(go if program == "go" else ours)],
            check=False,
            capture_output=True,
            text=True,
            env=env,
            cwd="/",
        )
        assert done.stdout, done.stderr
        return done.returncode, done.stdout


@pytest.fixture(scope="module", params=["root", "user"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    for place in (SHARE, ETC):
        if not os.path.isdir(place):
            pytest.skip(f"{place} is not there to be bound over (Debian: golang-github-containers-common)")
    if request.param == "root":
        with stores.scratch("config") as folder:
            yield Caller(folder, None)
    else:
        with a_user() as user:
            folder = user.home.parent / "config"
            folder.mkdir()
            yield Caller(folder, user)


@pytest.mark.parametrize("name", SCENES)
def test_same_as_go(caller: Caller, name: str) -> None:
    caller.prepare(SCENES[name])
    go = caller.call("go", SCENES[name])
    assert caller.call("ours", SCENES[name]) == go
