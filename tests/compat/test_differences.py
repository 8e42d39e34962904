"""Each row of "Different on purpose" (docs/compatibility.md): Go's newest program does what it says, ours does not.

A test fails when the difference goes away, on either side: then the row goes, too. `TESTS`, at the end, names the tests
of each row by its first cell.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path

import pytest

from layerhold.linux import selinux
from layerhold.testing import trees
from tests import aufs_store, inputs, programs, stores
from tests.compat import command_rows, test_check, test_config, test_copying
from tests.compat.test_commands import DRIVERS, Template, Twin, made, tar, write_inputs
from tests.users import a_user

pytestmark = [pytest.mark.compat, pytest.mark.root]

COMPATIBILITY = Path(__file__).resolve().parent.parent.parent / "docs" / "compatibility.md"
MOST = 25
NOBODY = 65534
MAPS = "--uidmap 0:100000:65536 --gidmap 0:200000:65536"
Pair = tuple[Twin, Twin]


# -- twins


def write_more_inputs(files: Path) -> None:
    """Archives that only the differences need."""
    below = tar(("a", b"a", 0o644), ("o", None, 0o755), ("o/in", None, 0o755), ("o/in/y", b"y", 0o644))
    contents = {
        "below.tar": below,
        "opaque.tar": tar(("o", None, 0o755), ("o/.wh..wh..opq", b"", 0o644)),
        "again.tar": tar(("o", None, 0o755), ("o/in", None, 0o755), ("o/in/y", b"yy", 0o644)),
        "instead.tar": tar(("a", None, 0o755), ("a/b", b"b", 0o644)),
        "by-link.tar": tar(
            ("usr", None, 0o755), ("usr/bin", None, 0o755), ("sbin", "/usr/bin", 0o777), ("sbin/tool", b"x", 0o755)
        ),
        "sparse.tar": inputs.odd()["pax-sparse"],
        "top-entry.tar": owned("."),
        "foreign.tar": owned("file"),
        "big.tar": tar(("big", bytes(8 << 20), 0o644)),
    }
    for name, content in contents.items():
        (files / name).write_bytes(content)


def owned(name: str) -> bytes:
    """A tar with one entry, owned by user 7: the directory that it is unpacked into, or a file."""
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type = tarfile.DIRTYPE if name == "." else tarfile.REGTYPE
        info.mode, info.uid, info.mtime = 0o711, 7, 1_500_000_000
        archive.addfile(info)
    return file.getvalue()


@pytest.fixture(scope="module", params=DRIVERS)
def template(request: pytest.FixtureRequest) -> Iterator[Template]:
    programs.storage()
    with stores.scratch("differences") as folder:
        write_inputs(folder / "files")
        write_more_inputs(folder / "files")
        yield made(Template(folder / "template", folder / "files", request.param))


@pytest.fixture
def twins(template: Template) -> Iterator[Pair]:
    """Our store and Go's, each for its own program."""
    folder = template.folder.with_name("work")
    yield template.twins(folder)
    stores.clear(folder)


@pytest.fixture
def over_additional(template: Template) -> Iterator[tuple[Pair, Path]]:
    """Empty stores over an additional one each, and the driver's home in Go's additional one."""
    folder = template.folder.with_name("over")
    below = folder / "below"
    folder.mkdir()
    template.twins(below)
    pair = []
    for name in ("ours", "go"):
        settings = ("--storage-opt", f"{template.driver}.imagestore={below / name / 'root'}")
        pair.append(getattr(template._replace(settings=settings), name)(folder / "over"))
    yield (pair[0], pair[1]), below / "go" / "root" / template.driver
    stores.clear(folder)


def both(twins: Pair, *lines: str) -> None:
    """Run lines that both are to carry out."""
    for twin in twins:
        for line in lines:
            outcome = twin.run(line)
            assert outcome.status == 0, (twin.executable, outcome)


def statuses(twins: Pair, line: str) -> tuple[int, int]:
    """The status of ours and that of Go's."""
    return twins[0].run(line).status, twins[1].run(line).status


def printed(twins: Pair, line: str) -> tuple[str, str]:
    """What ours and Go's print on standard output."""
    return twins[0].run(line).stdout, twins[1].run(line).stdout


def complained(twins: Pair, line: str) -> tuple[str, str]:
    """What ours and Go's print on standard error."""
    return twins[0].run(line).stderr, twins[1].run(line).stderr


def files_of(twin: Twin, id: str) -> Path:
    """The files of a layer, as the driver has them."""
    return twin.root / "overlay" / id / "diff" if twin.driver == "overlay" else twin.root / "vfs/dir" / id


def mounted(twin: Twin, id: str) -> Path:
    """Mount a layer."""
    return Path(twin.run(f"mount {id}").stdout.strip().replace("<store>", str(twin.folder)))


# -- words


def test_words_of_help_and_the_version_are_our_own(twins: Pair) -> None:
    ours, go = complained(twins, "version")
    assert re.sub(r"\d+\.\d+\.\d+", "", ours) == re.sub(r"\d+\.\d+\.\d+", "", go)
    assert ours != go
    ours, go = printed(twins, "layers --help")
    assert ours.splitlines()[0] == go.splitlines()[0]
    assert ours != go


def test_only_go_writes_a_log(twins: Pair) -> None:
    ours, go = twins
    assert "level=debug" in go.run("-D layers").stderr
    assert ours.run("-D layers").stderr == ""
    ours_failed, go_failed = complained(twins, "-D mount no-such-layer")
    assert "Traceback" not in ours_failed + go_failed  # of one among several: it has a line of its own
    assert "Traceback" in ours.run("-D changes no-such-layer").stderr
    assert "Traceback" not in go.run("-D changes no-such-layer").stderr


def test_go_has_no_order(twins: Pair) -> None:
    line = "exists base top empty packed image bare second box plain no-such-thing"
    ours, go = twins
    assert [row.split(":")[0] for row in ours.run(line).stdout.splitlines()] == line.split()[1:]
    assert len({go.run(line).stdout for _ in range(20)}) > 1
    if ours.driver == "vfs":
        assert len({go.run("changes top").stdout for _ in range(20)}) > 1
        assert len({ours.run("changes top").stdout for _ in range(3)}) == 1


def test_a_bad_archive_is_one_line(twins: Pair) -> None:
    """Of every row of the commands whose errors are each program's own."""
    rows = re.findall(r"^ *~ (.*)$", "\n".join(command_rows.ROWS.values()), re.M)
    assert rows
    for row in rows:
        ours, go = complained(twins, row.split(" ; ")[0])
        assert (len(ours.splitlines()), len(go.splitlines())) == (1, 2), row
        assert "unexpected EOF" in go
        assert "archive cannot be read" in ours


# -- changes and tars


def test_changes_see_what_the_layers_below_show(twins: Pair) -> None:
    both(twins, "import-layer -i a -f {files}/below.tar", "import-layer -i b -f {files}/opaque.tar a")
    both(twins, "import-layer -i c -f {files}/again.tar b", "import-layer -i d -f {files}/instead.tar a")
    above, instead = 'Modify "/o"\nAdd "/o/in"\nAdd "/o/in/y"\n', 'Modify "/a"\nAdd "/a/b"\n'
    ours, go = twins
    assert (ours.run("changes c").stdout, ours.run("changes d").stdout) == (above, instead)
    if ours.driver == "overlay":
        assert go.run("changes c").stdout == 'Modify "/o/in/y"\n'
        assert "not a directory" in go.run("changes d").stderr
    else:
        assert sorted(go.run("changes c").stdout.splitlines()) == sorted(above.splitlines())
        assert sorted(go.run("changes d").stdout.splitlines()) == sorted(instead.splitlines())


def test_sparse_files_and_files_by_way_of_absolute_links_come_back(twins: Pair) -> None:
    both(twins, "import-layer -i sparse -f {files}/sparse.tar", "import-layer -i link -f {files}/by-link.tar")
    came_in = {name: twins[0].plain((twins[0].files / name).read_bytes()) for name in ("sparse.tar", "by-link.tar")}
    ours, go = printed(twins, "diff -u sparse")
    assert ours == came_in["sparse.tar"] != go
    ours, go = printed(twins, "diff -u link")
    assert ours == came_in["by-link.tar"]
    assert statuses(twins, "diff -u link") == (0, 1)


def test_a_file_whose_owner_no_map_has_is_an_error_in_a_diff(twins: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    both(twins, f"create-layer -i new {MAPS}")
    for twin in twins:
        (files_of(twin, "new") / "foreign").write_text("")
        outcome = twin.run("diff -u -f {out}/diff new")
        if twin is twins[0]:
            assert (outcome.status, "cannot be mapped" in outcome.stderr) == (1, True)
        else:
            assert (outcome.status, "level=" in outcome.stderr) == (0, True)
            with tarfile.open(twin.out / "diff") as archive:
                assert "foreign" not in archive.getnames()


def test_a_file_that_cannot_be_read_is_an_error_in_a_diff(twins: Pair) -> None:
    unreadable = next(iter(sorted(Path("/sys/bus").glob("*/drivers_probe"))), None)  # not even by root
    if unreadable is None:
        pytest.skip("there is no file here that root cannot read")
    both(twins, "create-layer -i new")
    for twin in twins:
        file = files_of(twin, "new") / "unreadable"
        file.touch()
        subprocess.run(["mount", "--bind", str(unreadable), str(file)], check=True)
    ours, go = (twin.run("diff -u -f {out}/diff new") for twin in twins)
    assert ours[1:] == (1, "", "unreadable: permission denied\n")
    assert go[1:] == (0, "", "")
    with tarfile.open(twins[1].out / "diff") as archive, pytest.raises(tarfile.ReadError):
        archive.getnames()


def test_a_file_that_shrinks_meanwhile_is_an_error_in_a_diff(twins: Pair) -> None:
    both(twins, "import-layer -i big -f {files}/big.tar")
    assert [_status_of_a_diff_of_a_file_that_shrinks(twin) for twin in twins] == [1, 0]


def _status_of_a_diff_of_a_file_that_shrinks(twin: Twin) -> int:
    (twin.root / f"{twin.driver}-layers" / "big.tar-split.gz").unlink()
    words = [*twin.program, "-g", str(twin.root), "-R", str(twin.run_root), "-s", twin.driver, "diff", "-u", "big"]
    with subprocess.Popen(
        words, executable=twin.executable, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | stores.QUIET
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1 << 20)
        os.truncate(files_of(twin, "big") / "big", 2 << 20)
        left = process.stdout.read()
    assert len(left) < 7 << 20
    return process.returncode


# -- what is made and removed


def test_no_id_leads_out_of_the_store(twins: Pair) -> None:
    assert statuses(twins, "create-layer -i a/../../x") == (1, 0)
    assert statuses(twins, "create-storage-layer -i a/../../y") == (1, 0)
    ours, go = twins
    place = "vfs/dir" if ours.driver == "vfs" else ""
    for name in ("x", "y"):
        assert (go.root / place / name).exists()
        assert not (ours.root / place / name).exists()
    if ours.driver == "vfs":
        assert statuses(twins, "import-layer -i a/../../z -f {files}/base.tar") == (1, 0)


def test_a_layer_of_the_driver_takes_no_id_that_is_taken(twins: Pair) -> None:
    (files_of(twins[0], command_rows.BASE) / "added").touch()
    assert statuses(twins, "create-storage-layer -i {base}") == (1, 0)
    assert (files_of(twins[0], command_rows.BASE) / "etc/passwd").exists()
    assert (files_of(twins[1], command_rows.BASE) / "etc/passwd").exists() == (twins[0].driver == "vfs")


def test_the_directory_of_an_image_is_that_of_its_id(twins: Pair) -> None:
    for command in ("get-image-dir", "get-image-run-dir"):
        ours, go = printed(twins, f"{command} image")
        assert (f"/{command_rows.IMAGE}/" in ours, "/image/" in go) == (True, True)
        assert statuses(twins, f"{command} no-such-image") == (1, 0)


@pytest.mark.parametrize("ref", ["base", "top", "image"])
def test_delete_refuses_what_is_needed(twins: Pair, ref: str) -> None:
    before = twins[0].records()
    assert statuses(twins, f"delete {ref}") == (1, 0)
    assert twins[0].records() == before


def test_a_layer_keeps_a_name_that_is_given_twice(twins: Pair) -> None:
    both(twins, "create-layer -i new -n a -n b -n a", "create-image -i new-image -n c -n d -n c")
    assert printed(twins, "layer new") == ("ID: new\nName: a\nName: b\n", "ID: new\nName: b\n")
    ours, go = printed(twins, "get-names new-image")
    assert ours == go == "c\nd\n"


# -- ID maps


@pytest.mark.parametrize("maps", ["0:1000:5:3:2000:5", "0:1000:5:9:2000:0", "0:4294967295:1"])
def test_maps_that_no_kernel_takes_are_refused(twins: Pair, maps: str) -> None:
    assert statuses(twins, f"create-layer --uidmap {maps} --gidmap 0:1000:5") == (1, 0)


def test_a_copy_leaves_no_owner_out(twins: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    both(twins, "import-layer -i x -f {files}/foreign.tar", "create-image -i y -n y x")
    short = "--uidmap 0:1000:5 --gidmap 0:1000:5"
    assert statuses(twins, f"create-layer -i z {short} x") == (1, 0)
    assert statuses(twins, f"create-container -i new {short} y") == (1, 0)
    assert mounted(twins[1], "z").joinpath("file").stat().st_uid == NOBODY


def test_the_top_directory_is_as_the_archive_and_the_maps_say(twins: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    both(twins, "import-layer -i x -f {files}/top-entry.tar", f"create-layer -i y {MAPS} x")
    found = []
    for twin in twins:
        x, y = (mounted(twin, id).stat() for id in ("x", "y"))
        found.append((x.st_mode & 0o7777, x.st_uid, x.st_mtime == 1_500_000_000, y.st_uid))
    if twins[0].driver == "vfs":
        assert found == [(0o711, 7, True, 100_007), (0o711, 7, False, 100_000)]
    else:
        assert found == [(0o711, 7, True, 100_000), (0o555, 0, False, 0)]


# -- additional stores


def test_an_id_of_an_additional_store_can_be_used_again(over_additional: tuple[Pair, Path]) -> None:
    twins, below = over_additional
    ours, go = twins
    theirs = ours.root.parent.parent.parent / "below" / "ours" / "root" / ours.driver
    content = trees.rows(theirs)
    both(twins, "create-layer -i {base} -n own")
    assert ours.run("layer own").stdout.splitlines() == [f"ID: {'1' * 64}", "Name: own"]
    assert ours.run("delete-layer own").status == 0
    assert ours.run("layer base").stdout.splitlines()[-1] == "Read Only: true"
    assert trees.rows(theirs) == content
    lost = not (below / command_rows.BASE / "diff/etc").exists() if go.driver == "overlay" else False
    assert lost == (go.driver == "overlay")


def test_images_of_an_additional_store_are_mounted_and_taken_over(over_additional: tuple[Pair, Path]) -> None:
    twins, _ = over_additional
    unknown = "layer not known while mounting image\n"
    assert complained(twins, "mount --ro image") == ("", unknown)
    both(twins, "add-names -n other image")
    assert complained(twins, "delete-image other") == ("", "other: layer not known\n")


def test_an_additional_store_that_cannot_be_read_is_passed_over(over_additional: tuple[Pair, Path]) -> None:
    twins, below = over_additional
    both(twins, "create-layer -i {missing} -n own")
    for name in ("ours", "go"):
        (below.parent.parent.parent / name / "root" / f"{below.name}-layers" / "layers.json").write_text("[{")
    assert statuses(twins, "layers -q") == (0, 1)
    assert twins[0].run("layers -q").stdout == f"{command_rows.MISSING}\n"
    assert "below/ours/root is passed over: loading" in twins[0].run("layers").stderr
    assert statuses(twins, "layer base") == (1, 1)


def test_an_additional_store_that_is_named_twice_is_listed_once(over_additional: tuple[Pair, Path]) -> None:
    lines = []
    for twin in over_additional[0]:
        twin.settings = [*twin.settings, *twin.settings]
        lines.append(len(twin.run("layers -q").stdout.splitlines()))
    assert lines[1] == 2 * lines[0]


# -- mounts


def test_a_layer_is_mounted_by_its_name(twins: Pair) -> None:
    assert statuses(twins, "mount base") == (0, 1)


def test_a_mount_goes_without_a_label_where_selinux_is_off(twins: Pair) -> None:
    if selinux.enabled():
        pytest.skip("SELinux is on here: both give the mount its label")
    line = "mount -l system_u:object_r:container_file_t:s0:c1,c2 box"
    assert twins[0].run(line)[1:] == (0, twins[0].run("mount box").stdout, "")
    assert twins[1].run(line).status == (1 if twins[0].driver == "overlay" else 0)


# -- settings


def with_settings(program: str, settings: Path, *words: str) -> stores.Answer:
    """Run a program with a storage.conf."""
    start = [programs.storage()] if program == "go" else stores.ours()
    env = os.environ | stores.QUIET | {"CONTAINERS_STORAGE_CONF": str(settings)}
    return subprocess.run([*start, *words], check=False, capture_output=True, text=True, env=env)


def test_a_vfs_store_is_found_without_naming_the_driver(store_dir: Path) -> None:
    settings = store_dir / "storage.conf"
    settings.touch()
    found: Mapping[str, list[str]] = {"ours": [], "go": []}
    for program, drivers in found.items():
        where = ["-g", str(store_dir / program), "-R", str(store_dir / "run")]
        assert with_settings(program, settings, *where, "-s", "vfs", "create-layer", "-i", "x").returncode == 0
        assert with_settings(program, settings, *where, "layers", "-q").stdout == ("x\n" if program == "ours" else "")
        drivers += [name for name in DRIVERS if (store_dir / program / name).exists()]
    assert found == {"ours": ["vfs"], "go": ["vfs", "overlay"]}


def test_a_store_of_aufs_is_found_by_ours_alone(store_dir: Path) -> None:
    settings = store_dir / "storage.conf"
    settings.touch()
    root = store_dir / "root"
    aufs_store.make(root, store_dir / "run")
    where = ["-g", str(root), "-R", str(store_dir / "run")]
    assert len(with_settings("ours", settings, *where, "layers", "-q").stdout.splitlines()) == 3
    assert not (root / "overlay").exists()
    assert with_settings("go", settings, *where, "layers", "-q").stdout == ""
    assert (root / "overlay").exists()


def test_a_malformed_file_of_settings_is_read_by_go_alone(store_dir: Path) -> None:
    settings = store_dir / "storage.conf"
    settings.write_text("[storage]\nbroken")
    where = ["-g", str(store_dir / "root"), "-R", str(store_dir / "run"), "-s", "vfs"]
    answers = [with_settings(program, settings, *where, "layers") for program in ("ours", "go")]
    assert [answer.returncode for answer in answers] == [0, 1]
    assert "decode configuration" in answers[1].stdout


def test_a_system_file_with_the_roots_of_root_is_passed_over() -> None:
    for place in (test_config.SHARE, test_config.ETC):
        if not os.path.isdir(place):
            pytest.skip(f"{place} is not there to be bound over (Debian: golang-github-containers-common)")
    with a_user() as user:
        folder = user.home.parent
        for name in ("share", "etc", "roots"):
            (folder / name).mkdir()
        roots = f'graphroot = "{folder}/roots/graph"\nrunroot = "{folder}/roots/run"\ndriver = "vfs"\n'
        (folder / "etc/storage.conf").write_text(f"[storage]\n{roots}")
        shutil.copy2(programs.storage(), folder / "containers-storage")
        bind = ["unshare", "--mount", "sh", "-c", test_config.BIND, "sh", f"{folder}/share", f"{folder}/etc"]
        become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"]
        env = {"HOME": str(user.home), "PATH": os.environ["PATH"], "PYTHONPATH": str(user.code)}
        answers = [
            subprocess.run([*bind, *become, *words], check=False, capture_output=True, text=True, env=env, cwd="/")
            for words in (
                [user.python, "-c", programs.OURS_AS_GO, "layers"],
                [str(folder / "containers-storage"), "--unshare=false", "layers"],
            )
        ]
        assert [answer.returncode for answer in answers] == [0, 1], answers
        assert "is passed over, since this user cannot write it" in answers[0].stderr
        assert "permission denied" in answers[1].stdout


@pytest.mark.parametrize(
    "line",
    [
        "get-image-data -f {out}/file image no-such-key",
        "get-container-data -f {out}/file box no-such-key",
        "get-layer-data -f {out}/file base no-such-key",
        "diff -f {out}/file no-such-layer",
    ],
)
def test_a_file_is_kept_where_there_is_nothing_to_write(twins: Pair, line: str) -> None:
    for twin in twins:
        (twin.out / "file").write_text("of before")
    assert statuses(twins, line) == (1, 1)
    assert [(twin.out / "file").read_text() for twin in twins] == ["of before", ""]


# -- the table

# The tests of each row, by its first cell.
TESTS: dict[str, tuple[Callable[..., None], ...]] = {
    "help, `version`": (test_words_of_help_and_the_version_are_our_own,),
    "log lines": (test_only_go_writes_a_log,),
    "order of `delete…`, `exists`, `metadata`, and of `changes` on `vfs`": (test_go_has_no_order,),
    "an archive that is damaged, cut, or none at all": (test_a_bad_archive_is_one_line,),
    "`changes` on `overlay`, of what an opaque directory below hides, and of a directory in place of a file": (
        test_changes_see_what_the_layers_below_show,
    ),
    "`diff` of PAX sparse files, and of files unpacked by way of an absolute link (`sbin` → `/usr/bin`)": (
        test_sparse_files_and_files_by_way_of_absolute_links_come_back,
    ),
    "`diff` of a file that cannot be read, or shrinks meanwhile; or whose owner the maps do not cover": (
        test_a_file_that_cannot_be_read_is_an_error_in_a_diff,
        test_a_file_that_shrinks_meanwhile_is_an_error_in_a_diff,
        test_a_file_whose_owner_no_map_has_is_an_error_in_a_diff,
    ),
    "the directory `/` of a layer": (test_the_top_directory_is_as_the_archive_and_the_maps_say,),
    "`create-layer`, `import-layer`, `create-storage-layer` with an ID such as `a/../../x`": (
        test_no_id_leads_out_of_the_store,
    ),
    "`create-storage-layer` with an ID that is taken": (test_a_layer_of_the_driver_takes_no_id_that_is_taken,),
    "`get-image-dir`, `get-image-run-dir` with a name, or for an image that is not there": (
        test_the_directory_of_an_image_is_that_of_its_id,
    ),
    "`delete` of what something else needs": (test_delete_refuses_what_is_needed,),
    "`create-layer -n a -n b -n a`": (test_a_layer_keeps_a_name_that_is_given_twice,),
    "ID maps that overlap, are empty, or have the ID 4294967295; that lack an owner, where files are copied": (
        test_maps_that_no_kernel_takes_are_refused,
        test_a_copy_leaves_no_owner_out,
    ),
    "`-f FILE` of `get-…-data` and `diff`, and there is nothing to write": (
        test_a_file_is_kept_where_there_is_nothing_to_write,
    ),
    "an ID that an additional store has is used again (`overlay`)": (
        test_an_id_of_an_additional_store_can_be_used_again,
    ),
    "`mount --ro` of an image in an additional store; `delete-image` of one that was taken over from there; lists "
    "where such a store cannot be read, or is named twice": (
        test_images_of_an_additional_store_are_mounted_and_taken_over,
        test_an_additional_store_that_cannot_be_read_is_passed_over,
        test_an_additional_store_that_is_named_twice_is_listed_once,
    ),
    "`copy` by way of a link in a layer; owners of directories that it makes in a layer with ID maps": (
        test_copying.test_a_link_leads_out_of_the_layer_in_go_only,
        test_copying.test_directories_above_a_copy_belong_to_the_container,
    ),
    "`mount` of a layer by its name": (test_a_layer_is_mounted_by_its_name,),
    "`mount` on `overlay` with a label, given or recorded, where SELinux is off": (
        test_a_mount_goes_without_a_label_where_selinux_is_off,
    ),
    "`check` of directories without entries, links with modes of their own, and files that came by way of a link": (
        test_check.test_images_of_odd_tars_are_not_damaged,
    ),
    "`check -r`, `gc`": (
        test_check.test_a_directory_that_a_layer_stands_on_is_kept,
        test_check.test_what_is_mounted_stays_mounted,
    ),
    "no `-s`, and the store has `vfs` or `aufs` layers": (
        test_a_vfs_store_is_found_without_naming_the_driver,
        test_a_store_of_aufs_is_found_by_ours_alone,
    ),
    "`-g` and `-R` given, `storage.conf` malformed": (test_a_malformed_file_of_settings_is_read_by_go_alone,),
    "system file with roots that this user cannot write": (test_a_system_file_with_the_roots_of_root_is_passed_over,),
}


def test_each_row_has_a_test() -> None:
    section = COMPATIBILITY.read_text().partition("### Different on purpose\n")[2].partition("\n#")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")][2:]
    assert sorted(rows) == sorted(TESTS)
    assert len(rows) <= MOST
