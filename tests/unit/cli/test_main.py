"""The command as a whole, in this process, on a vfs store of whoever runs the tests."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from layerhold.cli import main as command
from layerhold.cli.table import COMMANDS, GLOBAL, OWN, by_name
from layerhold.errors import BadConfig

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", "/dev/null")
    where = ["-g", str(tmp_path / "root"), "-R", str(tmp_path / "run"), "-s", "vfs"]

    def run(*words: str, bare: bool = False) -> tuple[int, str, str]:
        status = command.main(words if bare else [*where, *words])
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return status, out, err

    return run


def a_tar(tmp_path: Path, *names: str) -> str:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.size = os.getuid(), os.getgid(), 3
            archive.addfile(info, io.BytesIO(b"abc"))
    return str(path)


# -- the table


def test_names_are_unique() -> None:
    every = (*COMMANDS, *OWN)
    names = [name for one in every for name in one.names]
    assert len(names) == len(set(names)) == len(by_name(every))


def test_every_command_has_its_code() -> None:
    for one in (*COMMANDS, *OWN):
        assert callable(command._code(one)), one.names[0]


def test_flags_of_a_command_do_not_hide_global_ones() -> None:
    taken = {name for flag in GLOBAL for name in flag.names}
    for one in COMMANDS:
        names = [name for flag in one.flags for name in flag.names]
        assert len(names) == len(set(names)), one.names[0]
        assert not taken & set(names), one.names[0]


# -- words and statuses


def test_a_layer_from_a_tar_to_the_end(run: Run, tmp_path: Path) -> None:
    assert run("import-layer", "-n", "base", "-f", a_tar(tmp_path, "file"))[0] == 0
    assert run("changes", "base") == (0, 'Add "/file"\n', "")
    assert run("diff", "-u", "-f", str(tmp_path / "out.tar"), "base") == (0, "", "")
    assert (tmp_path / "out.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()
    (layer,) = json.loads(run("layers", "-j")[1])
    assert layer["names"] == ["base"]
    assert run("delete-layer", "base") == (0, "", "")
    assert run("layers", "-j") == (0, "null\n", "")


def test_an_error_is_a_line_and_a_status(run: Run) -> None:
    assert run("diff", "nothing") == (1, "", 'layer not known\nhint: nothing there is called "nothing"\n')


def test_under_the_other_name_there_are_no_hints(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/containers-storage"])
    assert run("diff", "nothing") == (1, "", "layer not known\n")
    assert run("laiers") == (1, "laiers: unrecognized command.\n", "")


def test_with_debug_an_error_comes_with_its_traceback(run: Run) -> None:
    status, _, err = run("-D", "diff", "nothing")
    assert status == 1
    assert err.startswith("Traceback")
    assert "\nlayer not known\n" in err


def test_no_command(run: Run) -> None:
    status, out, err = run(bare=True)
    assert status == 1
    assert out.startswith("Usage: layerhold command")
    assert "--graph, -g" in err


def test_commands_of_ours_alone_are_not_there_under_the_other_name(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "\n  manual " in run("--help", bare=True)[1]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/containers-storage"])
    assert "\n  manual " not in run("--help", bare=True)[1]
    assert run("manual", str(tmp_path / "man"), bare=True) == (1, "manual: unrecognized command.\n", "")


def test_global_help_is_no_error_and_goes_to_stdout(run: Run) -> None:
    status, out, err = run("--help", bare=True)
    assert (status, err) == (0, "")
    assert "--graph, -g" in out


def test_help_of_a_command_opens_no_store(run: Run, tmp_path: Path) -> None:
    status, out, err = run("layers", "--help")
    assert status == 125
    assert out.startswith("Usage: layerhold layers [options [...]]")
    assert f"--graph, -g={tmp_path}/root" in err
    assert not (tmp_path / "root").exists()


def test_help_of_a_command_says_more_than_its_line(run: Run) -> None:
    assert "\n\nWrite a layer as a tar stream\n\nA layer that came in" in run("diff", "--help")[1]


def test_too_many_words(run: Run) -> None:
    status, out, _ = run("layers", "a", "b")
    assert (status, out.splitlines()[0]) == (1, "layers: too many arguments ([a b]).")


def test_a_mistake_in_the_words_gets_a_hint(run: Run) -> None:
    assert "hint: flags stand before the arguments\n" in run("diff", "a", "-f", "b")[2]
    assert run("laiers") == (1, "laiers: unrecognized command.\n", "hint: is layers meant?\n")
    assert run("zzz") == (1, "zzz: unrecognized command.\n", "hint: layerhold --help lists the commands\n")


def test_a_name_that_is_taken_is_said(run: Run) -> None:
    id = run("create-layer", "-n", "a")[1].splitlines()[0]
    assert run("create-layer", "-n", "a")[2] == f'that name is already in use\nhint: layer {id} is called "a"\n'
    assert run("create-layer", "-i", id)[2] == f"that ID is already in use\nhint: layer {id} is there already\n"


def test_what_is_wrong_with_the_store_is_said(run: Run) -> None:
    status, out, _ = run("-s", "nonsense", "layers")
    assert status == 1
    assert out.startswith("error initializing: ")


def test_a_bad_configuration_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "storage.conf").write_text("[storage\n")
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    status, out, _ = run("layers", bare=True)
    assert status == 1
    assert out.startswith(f'error initializing: decode configuration "{tmp_path}/storage.conf": ')


def test_flags_behind_the_command_change_the_configuration(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/conf"\nrunroot = "{tmp_path}/run"\n'
    (tmp_path / "storage.conf").write_text(conf)
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    assert f"Root: {tmp_path}/conf\n" in run("status", bare=True)[2]
    assert (
        f"Root: {tmp_path}/other\nRun Root: {tmp_path}/run\n" in run("status", "-g", f"{tmp_path}/other", bare=True)[2]
    )


def test_a_hint_follows_the_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: object) -> int:
        raise BadConfig("no good", hint="try that")

    monkeypatch.setattr(command, "_code", lambda _command: fail)
    assert run("layers") == (1, "", "no good\nhint: try that\n")


def test_bytes_that_are_no_utf8_come_out_as_they_went_in(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"a\xff\n")
    run("import-layer", "-n", "base", "-f", a_tar(tmp_path, "x"))
    layer = tmp_path / "root/vfs/dir" / json.loads(run("layers", "-j")[1])[0]["id"]
    (layer / name).touch()
    assert run("changes", "base")[1] == 'Add "/a\\xff\\n"\nAdd "/x"\n'
    assert json.loads(run("changes", "-j", "base")[1])[0]["Path"] == "/a\ufffd\n"


def test_nobody_reads(tmp_path: Path) -> None:
    words = ["-g", f"{tmp_path}/root", "-R", f"{tmp_path}/run", "-s", "vfs", "--help"]
    code = f"import sys; sys.argv[1:] = {words!r}; from layerhold.cli.main import run; run()"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], check=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


# -- the tree


def test_a_tree_of_layers(run: Run, tmp_path: Path) -> None:
    ids = [str(digit) * 64 for digit in range(1, 6)]
    for id, parent in zip(ids, ("", ids[0], ids[1], ids[0], ""), strict=True):
        run("create-layer", "-i", id, *([parent] if parent else []))
    one, two, three, four, five = ids
    assert run("layers", "--tree")[1].splitlines() == [
        "(base)",
        f"├─{one}",
        f"│ ├─{two}",
        f"│ │ └─{three}",
        f"│ └─{four}",
        f"└─{five}",
    ]
    file = tmp_path / "root/vfs-layers/layers.json"
    file.write_text(json.dumps([layer for layer in json.loads(file.read_text()) if layer["id"] != one]))
    assert run("layers", "--tree")[1].splitlines() == [
        one,
        f"├─{two}",
        f"│ └─{three}",
        f"└─{four}",
        "(base)",
        f"└─{five}",
    ]


def test_an_empty_store_has_no_tree(run: Run) -> None:
    assert run("layers", "--tree") == (0, "", "")
