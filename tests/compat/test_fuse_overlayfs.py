"""Overlay by fuse-overlayfs, next to Go's program: each reads, mounts and changes what the other made."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold.testing import trees
from tests import fuse, programs, stores
from tests.stores import Place
from tests.users import OrdinaryUser

pytestmark = [pytest.mark.root, pytest.mark.compat]

MAPS = ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536")
MASKS = ("shared", "private", "0750")


@pytest.fixture
def place() -> Iterator[Place]:
    with stores.scratch("fuse") as folder:
        yield Place(folder, "overlay", [fuse.option()])


def plain(place: Place) -> Place:
    """The same store without the option."""
    return Place(place.folder, "overlay")


def tars(folder: Path, uid: int = 0, gid: int = 0, *, nodes: bool = True) -> tuple[str, str]:
    """A layer, and one over it that deletes; the files belong to one or to several owners."""

    def owner(number: int) -> tuple[int, int]:
        return (uid, gid) if uid else (number, number + 10)

    base, child = folder / "base.tar", folder / "child.tar"
    with tarfile.open(base, "w") as archive:
        for name, kind, mode, number, content in (
            ("d", tarfile.DIRTYPE, 0o755, 0, ""),
            ("d/a", tarfile.REGTYPE, 0o644, 1, "a"),
            ("d/b", tarfile.REGTYPE, 0o4755, 2, "b"),
            ("gone", tarfile.REGTYPE, 0o600, 0, "gone"),
            ("o", tarfile.DIRTYPE, 0o700, 3, ""),
            ("o/x", tarfile.REGTYPE, 0o644, 0, "x"),
            ("link", tarfile.SYMTYPE, 0o777, 4, "d/a"),
            ("hard", tarfile.LNKTYPE, 0o644, 1, "d/a"),
            *([("null", tarfile.CHRTYPE, 0o666, 0, ""), ("pipe", tarfile.FIFOTYPE, 0o640, 5, "")] if nodes else []),
        ):
            add(archive, name, kind, mode, owner=owner(number), content=content)
    with tarfile.open(child, "w") as archive:
        for name, kind, mode, number, content in (
            (".wh.gone", tarfile.REGTYPE, 0, 0, ""),
            ("o", tarfile.DIRTYPE, 0o700, 3, ""),
            ("o/.wh..wh..opq", tarfile.REGTYPE, 0, 0, ""),
            ("o/y", tarfile.REGTYPE, 0o644, 6, "y"),
        ):
            add(archive, name, kind, mode, owner=owner(number), content=content)
    for file in (base, child):
        file.chmod(0o644)
    return str(base), str(child)


def add(archive: tarfile.TarFile, name: str, kind: bytes, mode: int, *, owner: tuple[int, int], content: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 1_600_000_000
    entry.uid, entry.gid = owner
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        entry.linkname = content
    if kind == tarfile.CHRTYPE:
        entry.devmajor, entry.devminor = 1, 3
    if kind == tarfile.REGTYPE:
        entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content.encode()))


def make(place: Place, tmp_path: Path, *, go: bool) -> None:
    run = place.go if go else place.ours
    base, child = tars(tmp_path)
    run("import-layer", "-i", "base", "-f", base)
    run("import-layer", "-i", "child", "-f", child, "base")
    run("create-layer", "-i", "top", "child")


def work(top: Path) -> None:
    """What a container does; without what fuse-overlayfs 1.10 gets wrong."""
    (top / "d/b").unlink()
    (top / "link").unlink()
    (top / "d/a").rename(top / "d/c")
    (top / "new").mkdir()
    (top / "new/file").write_text("new")


WORKED = [
    'Add "/d/c"', 'Add "/new"', 'Add "/new/file"', 'Delete "/d/a"', 'Delete "/d/b"', 'Delete "/link"', 'Modify "/d"',
]  # fmt: skip


def lines(text: str) -> list[str]:
    return sorted(text.splitlines())


def members(data: str) -> dict[str, tuple[object, ...]]:
    with tarfile.open(data) as archive:
        return {
            member.name: (member.type, member.mode, member.uid, member.gid, member.size, member.linkname)
            for member in archive
        }


def diff_of(place: Place, id: str, tmp_path: Path, *, go: bool = False) -> Path:
    out = tmp_path / ("go.tar" if go else "ours.tar")
    out.unlink(missing_ok=True)
    (place.go if go else place.ours)("diff", "-u", "-f", str(out), id)
    return out


@pytest.mark.parametrize("go", [True, False], ids=["made by go", "made by ours"])
def test_what_one_made_and_changed_the_other_reads(place: Place, go: bool, tmp_path: Path) -> None:
    make(place, tmp_path, go=go)
    with place.mounted("top", go=go) as top:
        work(top)
    base, child = (Path(name).read_bytes() for name in tars(tmp_path))
    for run in (place.ours, place.go, plain(place).ours, plain(place).go):
        assert lines(run("changes", "top").stdout) == WORKED
        assert run("check").stdout == ""
    for where in (place, plain(place)):
        found = members(str(diff_of(where, "top", tmp_path)))
        assert found == members(str(diff_of(where, "top", tmp_path, go=True)))
        assert sorted(found) == [".wh.link", "d", "d/.wh.a", "d/.wh.b", "d/c", "new", "new/file"]
        for id, data in (("base", base), ("child", child)):
            assert diff_of(where, id, tmp_path).read_bytes() == data
            assert diff_of(where, id, tmp_path, go=True).read_bytes() == data
        assert where.ours("diffsize", "top").stdout == where.go("diffsize", "top").stdout
    shown = []
    for by_go in (True, False):
        with place.mounted("top", go=by_go) as top:
            shown.append(trees.rows(top))
    assert shown[0] == shown[1]
    assert (place.root / "overlay/.has-mount-program").read_text() == "true"


def look(path: bytes, row: trees.Row) -> trees.Row:
    """What is to be the same: owner and mode of a mark say nothing."""
    return row._replace(mode=0, uid=0, gid=0, mtime_ns=0) if b".wh." in path else row._replace(mtime_ns=0)


@pytest.mark.parametrize("go", [True, False], ids=["made by go", "made by ours"])
def test_layers_are_as_the_other_makes_them(go: bool, tmp_path: Path) -> None:
    found = []
    for by_go in (go, not go):
        with stores.scratch("fuse") as folder:
            place = Place(folder, "overlay", [fuse.option()])
            make(place, tmp_path, go=by_go)
            home = place.root / "overlay"
            assert stat.S_IMODE((home / ".has-mount-program").stat().st_mode) == 0o600
            rows = {id: trees.rows(home / id / "diff") for id in ("base", "child", "top")}
            found.append({(id, path): look(path, row) for id in rows for path, row in rows[id].items()})
            place.ours("shutdown")
    assert found[0] == found[1]


@pytest.mark.parametrize("go", [True, False], ids=["made by go", "made by ours"])
def test_containers_with_maps(place: Place, go: bool, tmp_path: Path) -> None:
    make(place, tmp_path, go=go)
    run = place.go if go else place.ours
    run("create-image", "-i", "img", "child")
    run("create-container", "-n", "box", *MAPS, "img")
    with place.mounted("box", go=go) as top:
        (top / "new").touch()
        os.chown(top / "new", 100007, 100008)
    with place.mounted("box", go=not go) as top:
        assert (top / "d/a").stat().st_uid == 100001
        assert (top / "new").stat().st_gid == 100008
    (layer,) = [row["layer"] for row in place.ours_json("containers")]
    found = members(str(diff_of(place, layer, tmp_path)))
    assert {name: row[2:4] for name, row in found.items()} == {"new": (7, 8)}
    assert place.ours("changes", layer).stdout == place.go("changes", layer).stdout == 'Add "/new"\n'


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("go", [True, False], ids=["made by go", "made by ours"])
def test_masks(place: Place, go: bool, mask: str, tmp_path: Path) -> None:
    masked = Place(place.folder, "overlay", [*place.options, f"overlay.force_mask={mask}"])
    make(masked, tmp_path, go=go)
    attributes = {}
    for path in (place.root / "overlay/base/diff").rglob("*"):
        if not path.is_symlink():
            attributes[path.name] = os.getxattr(path, "user.containers.override_stat").decode()
            wanted = {"shared": 0o755, "private": 0o700, "0750": 0o750}[mask]
            assert stat.S_IMODE(path.stat().st_mode) == wanted
    assert attributes == {
        "d": "0:10:0755:dir", "a": "1:11:0644:file", "b": "2:12:4755:file", "gone": "0:10:0600:file",
        "o": "3:13:0700:dir", "x": "0:10:0644:file", "hard": "1:11:0644:file", "null": "0:10:0666:char-1-3",
        "pipe": "5:15:0640:pipe",
    }  # fmt: skip
    assert os.getxattr(place.root / "overlay/base/diff", "user.containers.override_stat") == b"0:0:0755:dir"
    with masked.mounted("top", go=go) as top:
        (top / "new").touch()
        os.chown(top / "new", 5, 6)
        (top / "gone-too").touch()
        (top / "gone-too").unlink()
        (top / "pipe").unlink()
    for where in (masked, place, plain(place)):
        assert lines(where.ours("changes", "top").stdout) == ['Add "/new"', 'Delete "/pipe"']
    found = members(str(diff_of(plain(place), "top", tmp_path)))
    assert found["new"][2:4] == (5, 6)
    assert found == members(str(diff_of(masked, "top", tmp_path, go=True)))
    with masked.mounted("top", go=not go) as top:
        assert (top / "d/a").stat().st_uid == 1
        assert stat.S_IMODE((top / "d/b").stat().st_mode) == 0o4755
    for run in (masked.ours, masked.go):
        assert run("check").stdout == ""


@pytest.mark.parametrize(
    "option",
    [
        "overlay.mount_program=/missing/program",
        "overlay.force_mask=0999",
        "overlay.force_mask=abc",
        "overlay.force_mask=",
        "overlay.force_mask=shared",
    ],
)
def test_refusals(option: str) -> None:
    said = []
    for by_go in (True, False):
        with stores.scratch("fuse") as folder:
            place = Place(folder, "overlay", [option])
            answer = (place.go if by_go else place.ours)("create-layer", "-i", "a", check=False)
            said.append((answer.returncode, (answer.stdout + answer.stderr).splitlines()[0]))
            Place(folder, "overlay").ours("shutdown")
    assert said[0] == said[1]


def test_status(place: Place) -> None:
    ours, theirs = place.ours("status"), place.go("status")
    assert ours.stdout + ours.stderr == theirs.stdout + theirs.stderr


def test_a_program_that_fails(place: Place, tmp_path: Path) -> None:
    place.ours("create-layer", "-i", "a")
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho nothing works >&2\nexit 7\n")
    program.chmod(0o755)
    failing = Place(place.folder, "overlay", [f"overlay.mount_program={program}"])
    said = [run("mount", "a", check=False) for run in (failing.ours, failing.go)]
    assert said[0].returncode == said[1].returncode == 1
    assert said[0].stderr.split() == said[1].stderr.split()


# -- different on purpose: the rows of docs/compatibility.md


def test_what_a_hidden_directory_had(place: Place, tmp_path: Path) -> None:
    make(place, tmp_path, go=True)
    rest = ['Add "/o/y"', 'Delete "/gone"', 'Modify "/o"']
    assert lines(place.go("changes", "child").stdout) == rest
    assert lines(place.ours("changes", "child").stdout) == sorted([*rest, 'Delete "/o/x"'])


def test_diff_of_a_container_with_maps_and_its_top(place: Place, tmp_path: Path) -> None:
    make(place, tmp_path, go=False)
    place.ours("create-image", "-i", "img", "child")
    for go, owner, names in ((False, 100000, ["new"]), (True, 65534, [])):
        run = place.go if go else place.ours
        run("create-container", "-i", str(go), *MAPS, "img")
        with place.mounted(str(go), go=go) as top:
            assert top.stat().st_uid == owner
            (top / "new").touch()
            os.chown(top / "new", 100007, 100008)
        (layer,) = [row["layer"] for row in place.ours_json("containers") if row["id"] == str(go)]
        out = tmp_path / "out.tar"
        run("diff", "-u", "-f", str(out), layer)
        assert (list(members(str(out))) if out.stat().st_size else []) == names


def test_a_name_and_its_whiteout_in_one_archive(place: Place, tmp_path: Path) -> None:
    archive = tmp_path / "both.tar"
    with tarfile.open(archive, "w") as file:
        for name in (".wh.both", "both"):
            add(file, name, tarfile.REGTYPE, 0o644, owner=(0, 0), content="")
    for go, names in ((False, ["both"]), (True, [])):
        (place.go if go else place.ours)("import-layer", "-i", str(go), "-f", str(archive))
        with place.mounted(str(go)) as top:
            assert os.listdir(top) == names


def test_flags_of_the_mount(place: Place, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/said\nexec {fuse.program()} "$@"\n')
    program.chmod(0o755)
    told = Place(place.folder, "overlay", [f"overlay.mount_program={program}", "overlay.mountopt=nodev"])
    told.ours("create-layer", "-i", "a")
    for go in (False, True):
        with told.mounted("a", go=go):
            pass
    ours, theirs = (tmp_path / "said").read_text().splitlines()
    assert ours == f"{theirs},nodev"


def test_where_the_program_is_missing(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place.ours("create-layer", "-i", "a")
    place.ours("shutdown")
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = plain(place).go("layers", "-q", check=False)
    assert answer.returncode == 1
    assert "fuse-overlayfs not found" in answer.stdout + answer.stderr
    assert plain(place).ours("layers", "-q").stdout == "a\n"
    assert plain(place).ours("changes", "a").stdout == ""
    answer = plain(place).ours("mount", "a", check=False)
    assert answer.returncode == 1
    assert "install fuse-overlayfs" in answer.stderr


# -- ordinary users


@pytest.fixture
def user(ordinary_user: OrdinaryUser) -> OrdinaryUser:
    fuse.for_everybody()
    return ordinary_user


def users_store(user: OrdinaryUser) -> list[str]:
    return ["-g", str(user.home / "g"), "-R", str(user.home / "r"), "-s", "overlay", "--storage-opt", fuse.option()]


def users_go(user: OrdinaryUser) -> list[str]:
    copied = user.code / "containers-storage"
    shutil.copy(programs.storage(), copied)
    copied.chmod(0o755)
    return [str(copied), *users_store(user)]


def users_ours(user: OrdinaryUser, *flags: str) -> list[str]:
    return [user.python, "-c", programs.OURS_AS_GO, *users_store(user), *flags]


@pytest.mark.parametrize("go", [True, False], ids=["made by go", "made by ours"])
def test_a_users_store_in_a_namespace(user: OrdinaryUser, go: bool) -> None:
    make_program, other = [users_go(user), users_ours(user)][:: 1 if go else -1]
    base, child = tars(user.home, nodes=False)
    user.as_user([*make_program, "import-layer", "-i", "base", "-f", base])
    user.as_user([*make_program, "import-layer", "-i", "child", "-f", child, "base"])
    user.as_user([*make_program, "create-layer", "-i", "top", "child"])
    script = 'top=$("$@" mount top | tail -1); rm $top/d/b $top/link; mv $top/d/a $top/d/c; "$@" unmount top'
    inside = [*users_ours(user)[:3], "unshare", "sh", "-c", script, "sh"]
    user.as_user([*inside, *make_program])
    outside = users_ours(user, "--unshare=false")
    for program in (make_program, other, outside):
        assert lines(user.as_user([*program, "changes", "top"]).stdout) == [
            'Add "/d/c"', 'Delete "/d/a"', 'Delete "/d/b"', 'Delete "/link"', 'Modify "/d"',
        ]  # fmt: skip
    for program in (make_program, other):
        out = user.home / f"{len(program)}.tar"
        user.as_user([*program, "diff", "-u", "-f", str(out), "base"])
        assert out.read_bytes() == Path(base).read_bytes()
    seen = 'top=$("$@" mount top | tail -1); cat $top/d/c; stat -c %u:%g $top/d/c; "$@" unmount top'
    words = [*users_ours(user)[:3], "unshare", "sh", "-c", seen, "sh", *other]
    assert user.as_user(words).stdout.split()[:2] == ["a1:11", "top"]


def test_a_user_outside_of_namespaces(user: OrdinaryUser) -> None:
    """Where Go's program always makes one."""
    base, child = tars(user.home, user.uid, user.gid, nodes=False)
    ours = users_ours(user, "--unshare=false")
    user.as_user([*ours, "import-layer", "-i", "base", "-f", base])
    user.as_user([*ours, "import-layer", "-i", "child", "-f", child, "base"])
    user.as_user([*ours, "create-layer", "-i", "top", "child"])
    top = user.as_user([*ours, "mount", "top"]).stdout.splitlines()[-1]
    seen = user.as_user(["sh", "-c", f"cd {top}; find . | sort; rm d/b; stat -f -c %T ."]).stdout.split()
    assert seen == [".", "./d", "./d/a", "./d/b", "./hard", "./link", "./o", "./o/y", "fuseblk"]
    user.as_user([*ours, "unmount", "top"])
    for program in (ours, users_go(user)):
        assert lines(user.as_user([*program, "changes", "top"]).stdout) == ['Delete "/d/b"', 'Modify "/d"']
    assert user.as_user([*ours, "check"]).stdout == ""
    refused = user.layerhold("-g", f"{user.home}/h", "-R", f"{user.home}/r", "-s", "overlay", "--unshare=false",
                             "create-layer", check=False)  # fmt: skip
    assert (refused.returncode, "or set the option overlay.mount_program" in refused.stderr) == (1, True)


def test_a_mask_lets_a_user_outside_have_files_of_others(user: OrdinaryUser) -> None:
    base, child = tars(user.home)
    ours = users_ours(user, "--unshare=false", "--storage-opt", "overlay.force_mask=shared")
    user.as_user([*ours, "import-layer", "-i", "base", "-f", base])
    user.as_user([*ours, "import-layer", "-i", "child", "-f", child, "base"])
    user.as_user([*ours, "create-layer", "-i", "top", "child"])
    top = user.as_user([*ours, "mount", "top"]).stdout.splitlines()[-1]
    assert user.as_user(["stat", "-c", "%u %g %a", f"{top}/d/b"]).stdout.split() == ["2", "12", "4755"]
    user.as_user([*ours, "unmount", "top"])
    assert user.as_user([*ours, "check"]).stdout == ""
    user.as_user([*ours, "diff", "-u", "-f", "out.tar", "base"])
    assert (user.home / "out.tar").read_bytes() == Path(base).read_bytes()
