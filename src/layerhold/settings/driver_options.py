"""Which driver options the settings stand for: in Go's form to be shown, and in a form that every driver can be given.

Go gives a general option (`[storage.options] mountopt`) bare to whatever driver runs, which fails if it does not know
it. Ours gives it the name of each driver that does, since drivers pass over the options of others.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerhold.settings.sources import Settings

_OPTIONS = "storage.options"
_IMAGE_STORES = ("imagestore", "additionalimagestore")

# Keys of [storage.options] that are driver options, in Go's order, and the drivers that know them.
_GENERAL = {
    "size": ("btrfs", "overlay"),
    "mount_program": ("overlay",),
    "skip_mount_home": ("overlay",),
    "ignore_chown_errors": ("overlay", "vfs"),
    "force_mask": ("overlay",),
    "mountopt": ("overlay", "zfs"),
}
# The keys of the tables that drivers have, in Go's order.
OF_DRIVERS = {
    "btrfs": ("min_space", "size"),
    "overlay": (
        "ignore_chown_errors",
        "mount_program",
        "mountopt",
        "size",
        "inodes",
        "skip_mount_home",
        "force_mask",
        "use_composefs",
        "sync",
    ),
    "vfs": ("ignore_chown_errors", "sync"),
    "zfs": ("fsname", "mountopt", "size"),
}
# Tables may have these, but no driver of that name does anything with them (Go's drivers fail).
NOT_TAKEN = ("vfs.sync", "zfs.size")


def image_stores(options: Sequence[str], driver: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take the additional image stores out of driver options: (the other options, the roots of these stores).

    They come as `imagestore` or `additionalimagestore`, bare, with the driver's name and a dot before it, or just the
    dot; a value is one root, or several with commas. If `driver` is "" every driver's are taken.
    """
    rest: list[str] = []
    stores: list[str] = []
    for option in options:
        key, found, value = option.partition("=")
        prefix, _, name = key.lower().rpartition(".")
        if found and name in _IMAGE_STORES and (not (prefix and driver) or prefix in (driver, f"{driver}2")):
            stores += filter(None, value.split(","))
        else:
            rest.append(option)
    return tuple(rest), tuple(stores)


def shown(settings: Settings) -> Iterator[str]:
    """Give the driver options of the files as Go has them: general ones first, and bare."""
    for store in settings.texts(f"{_OPTIONS}.additionalimagestores"):
        yield f"imagestore={store}"
    for store in settings.texts(f"{_OPTIONS}.additionallayerstores"):
        yield f"additionallayerstore={store}"
    for key in _GENERAL:
        if value := _general(settings, key):
            yield f"{key}={value}"
    yield from _of_tables(settings)


def usable(settings: Settings) -> Iterator[str]:
    """Give the driver options of the files, each with the name of a driver that knows it."""
    for store in settings.texts(f"{_OPTIONS}.additionallayerstores"):
        yield f"overlay.additionallayerstore={store}"
    for key, drivers in _GENERAL.items():
        if value := _general(settings, key):
            for driver in drivers:
                yield f"{driver}.{key}={value}"
    for option in _of_tables(settings):
        if option.partition("=")[0] not in NOT_TAKEN:
            yield option


def _of_tables(settings: Settings) -> Iterator[str]:
    for driver, keys in OF_DRIVERS.items():
        for key in keys:
            if value := settings.text(f"{_OPTIONS}.{driver}.{key}"):
                yield f"{driver}.{key}={value}"


def _general(settings: Settings, key: str) -> str:
    if key == "force_mask":
        mask = settings.count(f"{_OPTIONS}.force_mask")
        return f"{mask:o}" if mask else ""
    return settings.text(f"{_OPTIONS}.{key}")


def is_one(key: str) -> bool:
    """Tell whether a key of a `storage.conf` (its full name) sets driver options."""
    table, _, name = key.removeprefix(f"{_OPTIONS}.").rpartition(".")
    if table:
        return name in OF_DRIVERS.get(table, ())
    return name in _GENERAL or name in ("additionalimagestores", "additionallayerstores")
