"""The settings of a store, from the caller or from files and variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerhold.config import Config
from layerhold.errors import BadConfig, IncompleteOptions
from layerhold.settings import roots
from layerhold.settings import sources as settings


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The main file of the only system directory there is."""
    monkeypatch.setattr(settings, "SYSTEM", (str(tmp_path),))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path / "storage.conf"


def load(conf: Path, text: str = "", **env: str) -> Config:
    """Load the settings of this text."""
    conf.write_text(text)
    return Config.load(env={"HOME": str(conf.parent), **env})


def test_defaults(conf: Path) -> None:
    assert load(conf) == Config(graphroot="/var/lib/containers/storage", runroot="/run/containers/storage")


def test_every_field(conf: Path) -> None:
    config = load(
        conf,
        """
        [storage]
        driver = "overlay"
        driver_priority = ["vfs", "overlay"]
        graphroot = "/g"
        runroot = "/r"
        imagestore = "/i"
        transient_store = true
        [storage.options]
        additionalimagestores = ["/a", "/b"]
        size = "1"
        mountopt = "nodev"
        remap-uids = "0:1:1"
        remap-gids = "0:2:1"
        remap-user = "u"
        remap-group = "g"
        root-auto-userns-user = "auto"
        auto-userns-min-size = 5
        auto-userns-max-size = 6
        pull_options = { a = "b" }
        disable-volatile = true
        """,
    )
    assert config == Config(
        graphroot="/g",
        runroot="/r",
        imagestore="/i",
        driver="overlay",
        driver_priority=("vfs", "overlay"),
        options=("btrfs.size=1", "overlay.size=1", "overlay.mountopt=nodev", "zfs.mountopt=nodev"),
        driver_options_shown=("imagestore=/a", "imagestore=/b", "size=1", "mountopt=nodev"),
        additional_image_stores=("/a", "/b"),
        transient_store=True,
        remap_uids="0:1:1",
        remap_gids="0:2:1",
        remap_user="u",
        remap_group="g",
        auto_userns_user="auto",
        auto_userns_min_size=5,
        auto_userns_max_size=6,
        pull_options={"a": "b"},
        disable_volatile=True,
    )


def test_both_roots_given_no_file_is_read(conf: Path) -> None:
    conf.write_bytes(b"\xff")
    config = Config.load(graphroot="g", runroot="/r", options=["imagestore=/a", "x=y"], env={})
    assert config == Config(
        graphroot=f"{Path.cwd()}/g",
        runroot="/r",
        options=("x=y",),
        driver_options_shown=("imagestore=/a", "x=y"),
        additional_image_stores=("/a",),
    )


def test_a_root_that_is_not_given_comes_from_the_file_and_nothing_else_does(conf: Path) -> None:
    conf.write_text("[storage]\nrunroot = '/r'\ngraphroot = '/g'\ndriver = 'vfs'\ntransient_store = true")
    env = {"HOME": "/"}
    assert Config.load(graphroot="/mine", env=env) == Config(graphroot="/mine", runroot="/r")
    assert Config.load(runroot="/mine", env=env) == Config(graphroot="/g", runroot="/mine")
    assert Config.load(driver="overlay", env=env) == Config(graphroot="/g", runroot="/r", driver="overlay")


def test_empty_root() -> None:
    with pytest.raises(IncompleteOptions):
        Config.load(graphroot="", runroot="/r")


def test_more_options() -> None:
    config = Config.load(graphroot="/g", runroot="/r", options=["a=1", "imagestore=/a"])
    more = config.with_driver("vfs", ["b=2", "imagestore=/b"])
    assert (more.driver, more.options, more.additional_image_stores) == ("vfs", ("a=1", "b=2"), ("/a", "/b"))
    assert more.driver_options_shown == ("a=1", "imagestore=/a", "b=2", "imagestore=/b")


def test_options_of_the_variable_replace_those_of_the_file(conf: Path) -> None:
    text = "[storage.options]\nsize = '1'\nadditionalimagestores = ['/a']"
    config = load(conf, text, STORAGE_OPTS="overlay.imagestore=/b,x=1", STORAGE_DRIVER="overlay")
    assert (config.options, config.additional_image_stores) == (("x=1",), ("/b",))
    assert load(conf, text, STORAGE_OPTS="").additional_image_stores == ()


def test_variables_and_links_in_paths(conf: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    config = load(
        conf, f"[storage]\ngraphroot = '$WHERE/link/../x/$UID'\nrunroot = '{tmp_path}/link'", WHERE=str(tmp_path)
    )
    assert (config.graphroot, config.runroot) == (f"{tmp_path}/x/0", str(tmp_path))


def test_old_name_of_overlay(conf: Path) -> None:
    config = load(conf, "[storage]\ndriver = 'overlay2'")
    assert config.driver == "overlay"
    assert config.notes == (f"{conf}:2: storage.driver: overlay2 is an old name of the driver overlay",)


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("[storage.options]\nostree_repo = '/o'", "storage.options.ostree_repo: "),
        ("[storage.options.thinpool]\nbasesize = '1'", "storage.options.thinpool: "),
        ("[storage.options]\nvfs.sync = 'none'", "storage.options.vfs.sync: "),
        ("[storage.options]\nzfs.size = '1'", "storage.options.zfs.size: "),
    ],
)
def test_notes_about_what_has_no_effect(conf: Path, text: str, about: str) -> None:
    config = load(conf, text)
    (note,) = config.notes
    assert note.startswith(f"{conf}:")
    assert about in note
    assert config.options == ()


def test_image_store_that_is_the_graph_root(conf: Path) -> None:
    with pytest.raises(
        BadConfig, match=r"^imagestore /g must either be not set or be different than graphroot$"
    ) as got:
        load(conf, "[storage]\ngraphroot = '/x/../g'\nimagestore = '/g'")
    assert f"{conf}:3" in got.value.hint


def test_unknown_driver(conf: Path) -> None:
    with pytest.raises(BadConfig, match=f'^{conf}:2: storage.driver: unknown driver "ovrelay"$') as got:
        load(conf, "[storage]\ndriver = 'ovrelay'")
    assert "overlay" in got.value.hint
    with pytest.raises(BadConfig, match=r'^STORAGE_DRIVER: storage.driver: unknown driver "x"$'):
        load(conf, STORAGE_DRIVER="x")
    assert load(conf, "[storage]\ndriver = 'ovrelay'", STORAGE_DRIVER="vfs").driver == "vfs"


def test_path_with_a_zero_byte(conf: Path) -> None:
    with pytest.raises(BadConfig, match=f"^{conf}:2: storage.runroot: "):
        load(conf, '[storage]\nrunroot = "/a\\u0000"')


class TestUser:
    """An ordinary user."""

    @pytest.fixture(autouse=True)
    def user(self, conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
        self.env = {"XDG_RUNTIME_DIR": str(conf.parent)}

    def test_rootless_storage_path(self, conf: Path) -> None:
        assert load(conf, "[storage]\nrootless_storage_path = '/tmp/u$UID'", **self.env).graphroot == "/tmp/u54321"

    def test_graph_root_goes_before_rootless_storage_path(self, conf: Path) -> None:
        config = load(conf, "[storage]\nrootless_storage_path = '/tmp/u'\ngraphroot = '/tmp/g'", **self.env)
        assert config.graphroot == "/tmp/g"
        assert "rootless_storage_path" in config.notes[0]

    def test_root_of_a_system_file_that_cannot_be_written(self, conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(roots, "writable", lambda path: not path.startswith("/proc"))
        config = load(conf, "[storage]\nrunroot = '/proc/run'\ngraphroot = '/tmp/g'\ndriver = 'vfs'", **self.env)
        assert config.graphroot == f"{conf.parent}/.local/share/containers/storage"
        assert config.runroot == f"{conf.parent}/containers"
        assert config.driver == "vfs"
        assert config.notes == (f"{conf}: runroot /proc/run is passed over, since this user cannot write it",)

    def test_root_of_the_users_own_file_that_cannot_be_written(
        self, conf: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(roots, "writable", lambda _path: False)
        own = tmp_path_factory.mktemp("own") / "storage.conf"
        own.write_text("[storage]\nrunroot = '/proc/run'")
        config = load(conf, CONTAINERS_STORAGE_CONF=str(own), **self.env)
        assert config.runroot == "/proc/run"
        assert not config.notes


def test_root_has_no_rootless_storage_path(conf: Path) -> None:
    assert load(conf, "[storage]\nrootless_storage_path = '/u'").graphroot == "/var/lib/containers/storage"
