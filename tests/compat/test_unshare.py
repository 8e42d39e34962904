"""Ordinary users in user namespaces of theirs, next to Go's program."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from layerhold.testing import trees
from tests import programs
from tests.users import OrdinaryUser
from tests.wheres import PlaceInside, podman_unshare

pytestmark = [pytest.mark.compat, pytest.mark.root]

RANGES = ("/etc/subuid", "/etc/subgid")
IDENTITY = "id; cat /proc/self/uid_map /proc/self/gid_map; env | sort | grep -e _ROOTLESS -e _CONFIG -e BUILDAH"


@pytest.fixture
def user(ordinary_user: OrdinaryUser) -> OrdinaryUser:
    return ordinary_user


@pytest.fixture
def go(user: OrdinaryUser) -> str:
    """Go's program, where the user can run it."""
    copied = user.code / "containers-storage"
    shutil.copy(programs.storage(), copied)
    copied.chmod(0o755)
    return str(copied)


@pytest.fixture
def ranges(user: OrdinaryUser) -> list[int]:
    """The first of the user's subordinate user and group IDs."""
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed (Debian: apt-get install uidmap)")
    found = []
    for file in RANGES:
        rows = [row.split(":") for row in Path(file).read_text().splitlines()]
        mine = [int(row[1]) for row in rows if row[0] == user.name and int(row[2]) >= 1000]
        if not mine:
            pytest.skip(f"{user.name} has no IDs in {file}")
        found.append(min(mine))
    return found


def ours(user: OrdinaryUser) -> list[str]:
    return [user.python, "-c", programs.OURS_AS_GO]


def store(user: OrdinaryUser, name: str) -> list[str]:
    return ["-g", str(user.home / name), "-R", str(user.home / f"{name}-run"), "-s", "vfs"]


def a_tar(*, device: bool = True) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, uid, gid in (
            ("d", tarfile.DIRTYPE, 0, 0),
            ("d/one", tarfile.REGTYPE, 1, 2),
            *([("d/null", tarfile.CHRTYPE, 0, 0)] if device else []),
            ("last", tarfile.REGTYPE, 999, 1000),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.devmajor, info.devminor = kind, uid, gid, 1, 3
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            archive.addfile(info)
    return file.getvalue()


def owners(top: Path) -> dict[str, tuple[int, int]]:
    return {str(path.relative_to(top)): (path.lstat().st_uid, path.lstat().st_gid) for path in sorted(top.rglob("*"))}


def test_layers_of_a_user_have_files_of_several_owners(user: OrdinaryUser, go: str, ranges: list[int]) -> None:
    trees = []
    for name, program in (("ours", ours(user)), ("go", [go])):
        user.as_user([*program, *store(user, name), "import-layer", "-i", "layer"], stdin=a_tar())
        trees.append(owners(user.home / name / "vfs/dir/layer"))
    assert trees[0] == trees[1]
    first, group = ranges
    assert trees[0] == {"d": (user.uid, user.gid), "d/one": (first, group + 1), "last": (first + 998, group + 999)}
    for program in (ours(user), [go]):  # each reads the other's
        for name in ("ours", "go"):
            user.as_user([*program, *store(user, name), "diff", "-u", "-f", "/dev/null", "layer"])
            assert user.as_user([*program, *store(user, name), "changes", "layer"]).stdout.count("Add") == 3


@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", IDENTITY],
        ["sh", "-c", "exit 7"],
        ["sh", "-c", "kill -9 $$"],
        ["sh", "-c", "kill -15 $$"],
        ["no-such-command"],
        ["./no-such-command"],
        ["/tmp"],
        ["--", "pwd"],
        [],
    ],
    ids=" ".join,
)
def test_a_command_in_a_namespace(user: OrdinaryUser, go: str, ranges: list[int], words: list[str]) -> None:
    assert ranges
    env = {"SHELL": "/usr/bin/id"}
    mine, theirs = (user.as_user([*program, "unshare", *words], env, check=False) for program in (ours(user), [go]))
    assert (mine.returncode, mine.stdout, mine.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


def test_the_store_of_the_user_is_used_in_a_namespace(user: OrdinaryUser, go: str, ranges: list[int]) -> None:
    assert ranges
    env = {"STORAGE_DRIVER": "vfs"}
    (made,) = user.as_user([*ours(user), "create-layer"], env).stdout.split()
    for program in (ours(user), [go]):
        for words in (program, [*ours(user), "unshare", *program]):
            assert user.as_user([*words, "layers", "-q"], env).stdout.split() == [made]
    assert (user.home / ".local/share/containers/storage/vfs/dir" / made).is_dir()


def test_a_flag_says_otherwise(user: OrdinaryUser, ranges: list[int]) -> None:
    assert ranges
    for words in (["--unshare=false", "import-layer"], ["import-layer", "--unshare=false"]):
        done = user.as_user([*ours(user), *words, *store(user, "flag")], check=False, stdin=a_tar())
        assert (done.returncode, "may not give files to" in done.stderr) == (1, True)


def without_ranges(user: OrdinaryUser, *words: str, start: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run our command, or what `start` starts, on a machine where only somebody else has subordinate IDs."""
    others = user.home.parent / "others"
    others.write_text("somebody-else:300000:65536\n")
    hide = "".join(f"mount --bind {others} {file}; " for file in RANGES)
    become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "env", f"HOME={user.home}"]
    command = [*become, f"PYTHONPATH={user.code}", *(start or ours(user)), *words]
    script = f'{hide} exec "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command],
        check=False,
        capture_output=True,
        text=True,
        cwd=user.home,
        env=os.environ | {"XDG_RUNTIME_DIR": str(user.home)},
    )


def test_without_ranges_it_goes_on_without_a_namespace(user: OrdinaryUser) -> None:
    made = without_ranges(user, *store(user, "alone"), "create-layer", "-i", "layer")
    assert (made.returncode, made.stdout, made.stderr) == (0, "layer\n", "")
    assert (user.home / "alone/vfs/dir/layer").stat().st_mode & 0o777 == 0o755  # not as root would make it


def test_without_ranges_a_namespace_has_only_the_user(user: OrdinaryUser) -> None:
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed (Debian: apt-get install uidmap)")
    done = without_ranges(user, "unshare", "cat", "/proc/self/uid_map")
    assert (done.returncode, done.stdout.split()) == (0, ["0", str(user.uid), "1"])
    assert "no subuid ranges found" in done.stderr


# -- overlay

BASE, TOP, UPPER = "a" * 64, "b" * 64, "c" * 64
WHOLE = """
import os, sys
top = sys.argv[1]
for directory, _, names in sorted(os.walk(top)):
    for name in sorted(names):
        info = os.lstat(os.path.join(directory, name))
        print(os.path.relpath(os.path.join(directory, name), top), info.st_uid, info.st_gid, oct(info.st_mode))
"""


def overlay(user: OrdinaryUser, name: str) -> list[str]:
    return ["-g", str(user.home / name), "-R", str(user.home / f"{name}-run"), "-s", "overlay"]


def top_tar() -> bytes:
    """A layer that hides a file, and all of a directory, of the one below, and has files of its own."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, owner in (
            ("d", tarfile.DIRTYPE, 0),
            ("d/.wh.one", tarfile.REGTYPE, 0),
            ("e", tarfile.DIRTYPE, 5),
            ("e/.wh..wh..opq", tarfile.REGTYPE, 0),
            ("e/new", tarfile.REGTYPE, 7),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mode = kind, owner, owner, 0o755
            archive.addfile(info)
    return file.getvalue()


def test_overlay_in_a_namespace_is_gos(user: OrdinaryUser, go: str, ranges: list[int]) -> None:
    """The stores are alike on disk; each program reads, mounts and continues what the other has made."""
    assert ranges
    programs_ = {"ours": ours(user), "go": [go]}
    for name, program in programs_.items():
        user.as_user([*program, *overlay(user, name), "import-layer", "-i", BASE], stdin=a_tar(device=False))
        user.as_user([*program, *overlay(user, name), "import-layer", "-i", TOP, BASE], stdin=top_tar())
    for layer in (BASE, TOP):
        made = [trees.rows(user.home / name / "overlay" / layer / "diff") for name in programs_]
        mine, theirs = ({path: row._replace(mtime_ns=0) for path, row in rows.items()} for rows in made)
        assert mine == theirs
    for name in programs_:
        for program in programs_.values():
            words = [*program, *overlay(user, name)]
            for layer, tar in ((BASE, a_tar(device=False)), (TOP, top_tar())):
                assert user.as_user([*words, "diff", "-u", layer]).stdout.encode() == tar
            changed = user.as_user([*words, "changes", TOP]).stdout
            assert 'Delete "/d/one"' in changed
            assert not user.as_user([*words, "check"]).stdout
            look = f'm=$("$@" mount {TOP}) && {user.python} -c \'{WHOLE}\' $m && "$@" unmount {TOP}'
            seen = user.as_user([*ours(user), "unshare", "sh", "-c", look, "sh", *words]).stdout.splitlines()
            assert seen[:2] == ["last 999 1000 0o100644", "e/new 7 7 0o100755"]


def test_overlay_without_a_namespace_is_for_reading(user: OrdinaryUser, ranges: list[int]) -> None:
    assert ranges
    made = [*ours(user), *overlay(user, "read")]
    user.as_user([*made, "import-layer", "-i", BASE], stdin=a_tar())
    alone = [*ours(user), "--unshare=false", *overlay(user, "read")]
    assert user.as_user([*alone, "layers", "-q"]).stdout.split() == [BASE]
    assert user.as_user([*alone, "diff", "-u", BASE]).stdout.encode() == a_tar()
    assert user.as_user([*alone, "changes", BASE]).stdout.count("Add") == 3
    before = trees.rows(user.home / "read")
    for words in (["create-layer"], ["mount", BASE], ["delete-layer", BASE], ["wipe"]):
        done = user.as_user([*alone, *words], check=False)
        assert done.returncode == 1
        assert "overlay needs root, or a user namespace" in done.stdout + done.stderr
    assert trees.rows(user.home / "read") == before
    fresh = user.as_user([*ours(user), "--unshare=false", *overlay(user, "new"), "layers"], check=False)
    assert (fresh.returncode, "overlay needs root, or a user namespace" in fresh.stdout) == (1, True)


LIBRARY = """
import sys, warnings, layerhold
warnings.simplefilter("always")
layerhold.in_user_namespace()
layerhold.in_user_namespace()
with layerhold.Store.open(graphroot=sys.argv[1], runroot=sys.argv[2], driver="overlay") as store:
    base = store.layers.create()
    with store.layers.create(base).mount() as top:
        (top / "file").write_text("mine")
        print((top / "file").stat().st_uid)
"""


def test_a_program_goes_into_a_namespace(user: OrdinaryUser, ranges: list[int]) -> None:
    assert ranges
    words = [user.python, "-c", LIBRARY, str(user.home / "lib"), str(user.home / "lib-run")]
    done = user.as_user(words)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_program_goes_into_a_namespace_of_its_user_alone(user: OrdinaryUser) -> None:
    paths = [str(user.home / "lib"), str(user.home / "lib-run")]
    done = without_ranges(user, *paths, start=[user.python, "-c", LIBRARY])
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert done.stderr.count("OnlyOwnIDs") == 1
    assert "/etc/subuid" in done.stderr


# -- Podman's own namespace


@pytest.mark.parametrize("driver", ["overlay", "vfs", "btrfs"])
def test_inside_podman_unshare_and_outside_it_is_one_store(driver: str) -> None:
    """Go's program runs in the namespace that Podman made; ours is called by the user, and goes into one of its own."""
    with podman_unshare(driver) as (where, folder):
        inside = PlaceInside(where, folder / "store", driver)
        outside = [*ours(where.user), *inside.flags]
        tars = {BASE: a_tar(device=False), TOP: top_tar()}
        inside.go("import-layer", "-i", BASE, stdin=tars[BASE])
        where.user.as_user([*outside, "import-layer", "-i", TOP, BASE], stdin=tars[TOP])
        inside.go("create-layer", "-i", UPPER, TOP)
        with inside.mounted(UPPER, go=True) as top:
            where.do(change, top)
        for layer, tar in tars.items():
            assert inside.go("diff", "-u", layer).stdout.encode() == tar
            assert where.user.as_user([*outside, "diff", "-u", layer]).stdout.encode() == tar
        for words in (["layers", "-j"], ["changes", TOP], ["changes", UPPER], ["check"], ["diffsize", UPPER]):
            mine, theirs = where.user.as_user([*outside, *words]).stdout, inside.go(*words).stdout
            assert sorted(mine.splitlines()) == sorted(theirs.splitlines()), words
        assert 'Add "/mine"' in where.user.as_user([*outside, "changes", UPPER]).stdout
        seen = f'm=$("$@" mount {UPPER}) && {where.python} -c \'{WHOLE}\' $m && "$@" unmount {UPPER}'
        shown = where.user.as_user([*ours(where.user), "unshare", "sh", "-c", seen, "sh", *outside]).stdout
        assert shown.splitlines()[:3] == ["last 999 1000 0o100644", "mine 7 8 0o100640", "e/new 7 7 0o100755"]
        where.user.as_user([*outside, "delete-layer", UPPER])
        inside.go("delete-layer", TOP)
        assert where.user.as_user([*outside, "layers", "-q"]).stdout.split() == [BASE]


def change(top: Path) -> None:
    (top / "mine").touch(0o640)
    os.chown(top / "mine", 7, 8)
