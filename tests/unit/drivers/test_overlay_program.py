"""What a mount program is told, the options about it, and the note that it wrote in a home."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from layerhold.drivers import overlay_flag, overlay_home, overlay_program
from layerhold.drivers.overlay_mount import specify
from layerhold.errors import BadConfig, DriverError
from layerhold.ids.mappings import IdMappings, IdRange
from tests import stores

WHOLE = IdMappings(
    uids=(IdRange(container=0, host=100000, size=65536),),
    gids=(IdRange(container=0, host=200000, size=1000), IdRange(container=1000, host=300000, size=9)),
)
ONE = IdMappings(uids=(IdRange(container=0, host=5, size=1),), gids=(IdRange(container=0, host=6, size=1),))


def told(
    *options: str,
    mappings: IdMappings | None = None,
    read_only: bool = False,
    overridden: bool = False,
    home: str = "/h",
) -> str:
    spec = specify(
        target=f"{home}/id/merged",
        diff=f"{home}/id/diff",
        work=f"{home}/id/work",
        lowers=[f"{home}/a/diff", f"{home}/b/diff"],
        empty="",
        options=options,
        read_only=read_only,
    )
    call = overlay_program.call("/bin/program", home, spec, options, mappings, overridden=overridden)
    assert (call.program, call.home, call.target) == ("/bin/program", home, f"{home}/id/merged")
    return call.data


def test_the_option_string_is_gos() -> None:
    assert told() == "lowerdir=/h/a/diff:/h/b/diff,upperdir=/h/id/diff,workdir=/h/id/work"


def test_options_of_the_mount_are_passed_on_but_for_what_only_the_kernel_has() -> None:
    assert told("nodev", "metacopy=on", "volatile").endswith(",workdir=/h/id/work,nodev,volatile")


def test_read_only() -> None:
    assert told(read_only=True) == told("ro") == "lowerdir=/h/id/diff:/h/a/diff:/h/b/diff,ro"


def test_owners_are_mapped() -> None:
    assert told(mappings=WHOLE).endswith("work,uidmapping=0:100000:65536,gidmapping=0:200000:1000:1000:300000:9")
    assert told(mappings=ONE).endswith("work,squash_to_uid=5,squash_to_gid=6")


def test_overridden_owners() -> None:
    assert told(overridden=True).endswith(",xattr_permissions=2")


@pytest.mark.parametrize("home", ["/ho:me", "/ho,me", "/ho\\me"])
def test_paths_that_cannot_be_told_are_refused(home: str) -> None:
    with pytest.raises(DriverError, match="a mount program cannot be given a path with one of these"):
        told(home=home)


# -- options


@pytest.mark.parametrize(
    ("text", "mask"), [("shared", 0o755), ("private", 0o700), ("0750", 0o750), ("700", 0o700), ("0o711", 0o711)]
)
def test_masks(text: str, mask: int) -> None:
    assert overlay_home.settings([f"overlay.force_mask={text}"]).mask == mask


@pytest.mark.parametrize("text", ["", "0999", "abc", "-1", "17777", "0o"])
def test_what_is_no_mask(text: str) -> None:
    with pytest.raises(BadConfig, match=f'strconv.ParseInt: parsing "{text}": invalid syntax'):
        overlay_home.settings([f"overlay.force_mask={text}"])


def test_the_program_must_be_there(tmp_path: Path) -> None:
    assert overlay_home.settings([]).mount_program == ""
    assert overlay_home.settings([f"overlay.mount_program={tmp_path}"]).mount_program == str(tmp_path)
    missing = f"{tmp_path}/missing"
    with pytest.raises(BadConfig) as raised:
        overlay_home.settings([f"overlay.mount_program={missing}"])
    assert str(raised.value) == (
        f'overlay: can\'t stat program "{missing}": faccessat {missing}: no such file or directory'
    )


def test_what_to_install_where_the_program_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverError, match="install fuse-overlayfs, or name it"):
        overlay_program.find()


# -- running it


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def failing(program: str, home: Path) -> str:
    wanted = overlay_program.Call(program=program, home=str(home), data="lowerdir=x", target="/t")
    with pytest.raises(DriverError) as raised:
        overlay_program.mount(wanted)
    text = str(raised.value)
    begin = 'creating overlay mount to /t, mount_data="lowerdir=x": using mount program '
    assert text.startswith(f"{begin}{program}: ")
    return text.removeprefix(f"{begin}{program}: ")


def test_its_failures_in_gos_words(tmp_path: Path) -> None:
    assert failing(script(tmp_path / "a", "echo words >&2; exit 3"), tmp_path) == "words\n: exit status 3"
    assert failing(script(tmp_path / "b", "exit 3"), tmp_path) == "<stderr empty>: exit status 3"
    assert failing(script(tmp_path / "c", "kill -9 $$"), tmp_path) == "<stderr empty>: signal 9"
    missing = f"{tmp_path}/missing"
    assert failing(missing, tmp_path) == f"<stderr empty>: fork/exec {missing}: no such file or directory"


def test_it_is_called_in_the_home(tmp_path: Path) -> None:
    program = script(tmp_path / "a", f'echo "$PWD: $@" > {tmp_path}/said')
    overlay_program.mount(overlay_program.Call(program=program, home=str(tmp_path), data="lowerdir=x", target="/t"))
    assert (tmp_path / "said").read_text() == f"{tmp_path}: -o lowerdir=x /t\n"


# -- the note


def test_the_note(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert overlay_flag.is_noted(home) is None
    for by_program, text in ((True, "true"), (False, "false")):
        overlay_flag.note(home, by_program=by_program)
        assert (tmp_path / ".has-mount-program").read_text() == text
        assert stat.S_IMODE((tmp_path / ".has-mount-program").stat().st_mode) == 0o600
        assert overlay_flag.is_noted(home) is by_program
    (tmp_path / ".has-mount-program").write_text("tr")
    assert overlay_flag.is_noted(home) is None


def test_what_a_program_wrote_is_found(tmp_path: Path) -> None:
    layer = tmp_path / "a"
    (layer / "diff/d").mkdir(parents=True)
    (layer / "diff/d/file").touch()
    os.setxattr(layer / "diff/d/file", "user.containers.override_stat", b"0:0:0755")  # Go looks at directories alone
    assert not overlay_flag.found([str(layer)])
    (layer / "diff/d/.wh.x").touch()
    assert overlay_flag.found([str(layer)])
    (layer / "diff/d/.wh.x").unlink()
    for name in ("user.fuseoverlayfs.opaque", "user.containers.override_stat"):
        os.setxattr(layer / "diff/d", name, b"y")
        assert overlay_flag.found([str(layer)])
        os.removexattr(layer / "diff/d", name)
    assert not overlay_flag.found([str(layer)])


def test_what_lies_deeper_than_a_path_can_say_is_not_looked_into(tmp_path: Path) -> None:
    layers = [tmp_path / "deep", tmp_path / "marked"]
    for layer in layers:
        layer.mkdir()
    os.close(stores.nested(os.open(layers[0], os.O_RDONLY | os.O_DIRECTORY), 50, "d" * 200))
    assert not overlay_flag.found(map(str, layers))
    (layers[1] / ".wh.x").touch()
    for order in (layers, layers[::-1]):
        assert overlay_flag.found(map(str, order))
