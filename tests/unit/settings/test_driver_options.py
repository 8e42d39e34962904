"""Which driver options the settings stand for."""

from __future__ import annotations

import pytest

from layerhold.drivers.options import parse as parse_options
from layerhold.settings.driver_options import image_stores, is_one, shown, usable
from layerhold.settings.sources import Settings
from layerhold.settings.storage_conf import KEYS, parse

OVERLAY = frozenset(key.rpartition(".")[2] for key in KEYS if key.startswith("storage.options.overlay."))


def of(text: str) -> Settings:
    """The settings of one file."""
    settings = Settings()
    for setting in parse(text, "f"):
        settings.add(setting)
    return settings


@pytest.mark.parametrize(
    ("option", "stores"),
    [
        ("imagestore=/a", ("/a",)),
        ("overlay.imagestore=/a,/b", ("/a", "/b")),
        (".imagestore=/a", ("/a",)),
        ("additionalimagestore=/a", ("/a",)),
        ("overlay2.additionalimagestore=/a", ("/a",)),
        ("IMAGESTORE=/a", ("/a",)),
        ("imagestore=", ()),
    ],
)
def test_image_stores(option: str, stores: tuple[str, ...]) -> None:
    assert image_stores(["x=1", option], "overlay") == (("x=1",), stores)


@pytest.mark.parametrize("option", ["vfs.imagestore=/a", "imagestore", "imagestores=/a", "size=imagestore=/a"])
def test_what_names_no_image_store_of_this_driver(option: str) -> None:
    assert image_stores([option], "overlay") == ((option,), ())


def test_image_stores_of_every_driver_if_any_will_do() -> None:
    assert image_stores(["vfs.imagestore=/a", "overlay.imagestore=/b"], "") == ((), ("/a", "/b"))


def test_shown_as_go_has_it() -> None:
    settings = of("""
        [storage.options]
        mountopt = "nodev"
        force_mask = 0o700
        size = "1"
        ignore_chown_errors = "true"
        skip_mount_home = ""
        additionallayerstores = ["/l"]
        additionalimagestores = ["/a", "/b"]
        [storage.options.vfs]
        sync = "none"
        [storage.options.overlay]
        mount_program = "/p"
        """)
    assert list(shown(settings)) == [
        "imagestore=/a",
        "imagestore=/b",
        "additionallayerstore=/l",
        "size=1",
        "ignore_chown_errors=true",
        "force_mask=700",
        "mountopt=nodev",
        "overlay.mount_program=/p",
        "vfs.sync=none",
    ]


@pytest.mark.parametrize("key", [key for key in KEYS if is_one(key) and not key.endswith("stores")])
def test_each_key_reaches_the_drivers_that_know_it(key: str) -> None:
    table, _, name = key.rpartition(".")
    value = "0o700" if key == "storage.options.force_mask" else '"true"'
    options = list(usable(of(f"[{table}]\n{name} = {value}\n")))
    drivers = {option.partition(".")[0] for option in options}
    own = table.removeprefix("storage.options").lstrip(".")
    assert drivers <= {own} if own else drivers
    assert parse_options(options, "overlay", OVERLAY).get(name) == (
        "" if "overlay" not in drivers else "700" if value == "0o700" else "true"
    )
    parse_options(options, "vfs", frozenset({"ignore_chown_errors"}))
    parse_options(options, "btrfs", frozenset({"size", "min_space"}))
    parse_options(options, "zfs", frozenset({"fsname", "mountopt"}))


def test_own_table_goes_before_what_is_general() -> None:
    options = list(usable(of("[storage.options]\nmountopt = 'a'\noverlay.mountopt = 'b'\n")))
    assert parse_options(options, "overlay", OVERLAY).get("mountopt") == "b"


def test_additional_layer_stores_are_for_overlay() -> None:
    assert list(usable(of("[storage.options]\nadditionallayerstores = ['/a']"))) == ["overlay.additionallayerstore=/a"]


def test_which_keys_set_driver_options() -> None:
    assert is_one("storage.options.size")
    assert is_one("storage.options.zfs.fsname")
    assert not is_one("storage.options.pull_options")
    assert not is_one("storage.driver")
