"""Which files and variables count, and which goes before which."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerhold.errors import BadConfig
from layerhold.settings import sources as settings


class Machine:
    """Directories that stand in for /usr/share/containers, /etc/containers and the user's own."""

    def __init__(self, folder: Path) -> None:
        self.share, self.etc, self.own = folder / "share", folder / "etc", folder / "own/containers"
        self.env = {"XDG_CONFIG_HOME": str(folder / "own"), "HOME": str(folder)}

    def write(self, place: Path, line: str) -> Path:
        """Write a file with a line for its table [storage]."""
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"[storage]\n{line}\n")
        return place

    def read(self, **env: str) -> settings.Settings:
        """Read what counts here."""
        return settings.read({**self.env, **env})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(settings, "SYSTEM", (str(made.share), str(made.etc)))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def test_nothing_is_there(machine: Machine) -> None:
    found = machine.read()
    assert not found.files
    assert not list(found)


def test_only_the_first_main_file_counts(machine: Machine) -> None:
    for number, place in enumerate((machine.share, machine.etc, machine.own)):
        path = machine.write(place / "storage.conf", f'driver = "{number}"\nx{number} = 1')
        found = machine.read()
        assert (found.text("storage.driver"), found.files) == (str(number), [str(path)])
        assert [one.key for one in found.unknown] == [f"storage.x{number}"]


def test_link_that_leads_nowhere_is_no_main_file(machine: Machine) -> None:
    machine.write(machine.etc / "storage.conf", 'driver = "etc"')
    machine.own.mkdir(parents=True)
    (machine.own / "storage.conf").symlink_to("nowhere")
    assert machine.read().text("storage.driver") == "etc"


def test_named_file_stands_for_all_of_them(machine: Machine, tmp_path: Path) -> None:
    machine.write(machine.etc / "storage.conf", 'driver = "etc"')
    machine.write(machine.etc / "storage.conf.d/1.conf", 'driver = "drop-in"')
    named = machine.write(tmp_path / "named", 'runroot = "/r"')
    found = machine.read(CONTAINERS_STORAGE_CONF=str(named))
    assert (found.text("storage.driver"), found.text("storage.runroot")) == ("", "/r")


def test_drop_ins_are_read_by_name_over_the_main_file(machine: Machine) -> None:
    machine.write(machine.etc / "storage.conf", 'driver = "main"\nrunroot = "/main"')
    machine.write(machine.share / "storage.conf.d/20.conf", 'driver = "20"')
    machine.write(machine.own / "storage.conf.d/10.conf", 'driver = "10"\ngraphroot = "/10"')
    machine.write(machine.etc / "storage.conf.d/30.txt", 'driver = "30"')
    (machine.etc / "storage.conf.d/40.conf").mkdir()
    (machine.etc / "storage.conf.d/50.conf").symlink_to("nowhere")
    found = machine.read()
    assert [found.text(f"storage.{key}") for key in ("driver", "runroot", "graphroot")] == ["20", "/main", "/10"]
    assert [one.value for one in found.history("storage.driver")] == ["main", "10", "20"]


def test_drop_in_in_a_later_directory_replaces_the_one_of_its_name(machine: Machine) -> None:
    places = [
        machine.share / "storage.conf.d",
        machine.share / "storage.rootful.conf.d",
        machine.etc / "storage.conf.d",
        machine.etc / "storage.rootful.conf.d",
        machine.own / "storage.conf.d",
    ]
    for number, place in enumerate(places):
        path = machine.write(place / "1.conf", f'driver = "{number}"')
        assert machine.read().files == [str(path)]


def test_drop_ins_of_users(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    kinds = ("storage.conf.d", "storage.rootless.conf.d", "storage.rootless.conf.d/1234")
    places = [place / kind for place in (machine.share, machine.etc) for kind in kinds]
    for place in (*places, machine.own / "storage.conf.d"):
        path = machine.write(place / "1.conf", "")
        assert machine.read().files == [str(path)]
    for kind in ("storage.rootful.conf.d", "storage.rootless.conf.d/99"):
        machine.write(machine.etc / kind / "2.conf", "")
    machine.write(machine.own / "storage.rootless.conf.d/3.conf", "")
    assert len(machine.read().files) == 1


def test_override_is_read_last(machine: Machine, tmp_path: Path) -> None:
    machine.write(machine.etc / "storage.conf.d/1.conf", 'driver = "a"\nrunroot = "/a"')
    last = machine.write(tmp_path / "last", 'driver = "b"')
    found = machine.read(CONTAINERS_STORAGE_CONF_OVERRIDE=str(last))
    assert (found.text("storage.driver"), found.text("storage.runroot")) == ("b", "/a")


def test_variables_go_before_files(machine: Machine) -> None:
    machine.write(machine.etc / "storage.conf", 'driver = "a"')
    found = machine.read(STORAGE_DRIVER="b", STORAGE_OPTS="x=1,y")
    assert [one.origin for one in found.history("storage.driver")] == [
        f"{machine.etc}/storage.conf:2",
        "STORAGE_DRIVER",
    ]
    assert found.texts(settings.DRIVER_OPTIONS) == ("x=1", "y")


def test_empty_variables(machine: Machine) -> None:
    machine.write(machine.etc / "storage.conf", 'driver = "a"')
    found = machine.read(STORAGE_DRIVER="", STORAGE_OPTS="", CONTAINERS_STORAGE_CONF="")
    assert found.text("storage.driver") == "a"
    assert found.last(settings.DRIVER_OPTIONS) is not None
    assert found.texts(settings.DRIVER_OPTIONS) == ()


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (['["a"]', '["b"]'], ("b",)),
        (['["a"]', '["b", {append=true}]'], ("a", "b")),
        (['["a", {append=true}]', '["b"]'], ("a", "b")),
        (['["a", {append=true}]', '["b"]', '["c", {append=false}]'], ("c",)),
        (['["a", {append=true}]', '["b", {append=false}]', '["c"]'], ("c",)),
        (['["a"]', "[]"], ()),
    ],
)
def test_lists(machine: Machine, lists: list[str], expected: tuple[str, ...]) -> None:
    for number, text in enumerate(lists):
        machine.write(machine.etc / f"storage.conf.d/{number}.conf", f"driver_priority = {text}")
    assert machine.read().texts("storage.driver_priority") == expected


def test_options_of_pulls_are_put_together(machine: Machine) -> None:
    for number, text in enumerate(('a = "1", b = "2"', 'b = "3"')):
        machine.write(machine.etc / f"storage.conf.d/{number}.conf", f"options.pull_options = {{ {text} }}")
    assert machine.read().mapping("storage.options.pull_options") == {"a": "1", "b": "3"}


@pytest.mark.parametrize("variable", ["CONTAINERS_STORAGE_CONF", "CONTAINERS_STORAGE_CONF_OVERRIDE"])
def test_named_file_must_be_there(machine: Machine, tmp_path: Path, variable: str) -> None:
    with pytest.raises(BadConfig, match=f"^open {tmp_path}/none: no such file or directory$"):
        machine.read(**{variable: f"{tmp_path}/none"})


def test_named_file_may_not_be_a_directory(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=f'^decode configuration "{tmp_path}": read {tmp_path}: is a directory$'):
        machine.read(CONTAINERS_STORAGE_CONF=str(tmp_path))


def test_what_stands_in_the_way_of_a_file(machine: Machine) -> None:
    machine.own.parent.write_text("")
    with pytest.raises(BadConfig, match=f"^open {machine.own}/storage.conf: not a directory$"):
        machine.read()


def test_what_stands_in_the_place_of_a_directory(machine: Machine) -> None:
    machine.etc.mkdir()
    (machine.etc / "storage.conf.d").write_text("")
    with pytest.raises(BadConfig, match=f"^open {machine.etc}/storage.conf.d: not a directory$"):
        machine.read()


def test_binary_file(machine: Machine) -> None:
    path = machine.write(machine.etc / "storage.conf", "")
    path.write_bytes(b"[storage]\n\n\xff")
    with pytest.raises(BadConfig, match=f'^decode configuration "{path}": toml: line 3: files must be valid UTF-8$'):
        machine.read()


def test_files_of_the_system(machine: Machine) -> None:
    assert settings.is_of_the_system(f"{machine.etc}/storage.conf.d/1.conf")
    assert not settings.is_of_the_system(f"{machine.own}/storage.conf")
