"""The settings of a store: from the caller, or else from the files and variables of `settings/sources.py`.

If the caller names both roots no file is read, since none has a say; a single root that he does not name comes from the
files, and nothing else does.

What is done with the settings beyond reading them:

- In `graphroot`, `runroot` and `rootless_storage_path`, `$UID` and variables of the environment are put in, and links
  are resolved if the place is there.
- A general driver option (`[storage.options] mountopt`) reaches the drivers that know it, and no other.
- What is of an earlier version, or passed over, is a note: a sentence for the user.
- An ordinary user is not given the roots of a system file that he cannot write (Debian ships one with root's).
"""

from __future__ import annotations

import os

from layerhold.errors import BadConfig, IncompleteOptions
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from layerhold.settings.sources import Settings
    from layerhold.settings.storage_conf import Setting

_OPTIONS = "storage.options"
_DRIVERS = ("aufs", "btrfs", "devicemapper", "overlay", "overlay2", "vfs", "zfs")
_NO_IDMAP = "_CONTAINERS_OVERLAY_DISABLE_IDMAP"  # "yes": as Go's library has it, for tests and broken kernels


class Config(Value):
    """The settings of a store.

    `driver` is "" if any will do. `options` are the driver's, `key=value`, without those that name additional image
    stores: these are `additional_image_stores`. `driver_options_shown` has both, as Go prints them. `imagestore` is the
    root for images if that is not `graphroot`, else "". `remap_*` are ranges (`0:1000:1`, several with commas) and
    names in /etc/subuid and /etc/subgid for the ID maps of layers that are given none. `auto_userns_*` are counts of
    IDs. `pull_options` and `disable_volatile` are for whoever pulls images and makes containers. `notes` are sentences
    for the user, about what was passed over.
    """

    graphroot: str
    runroot: str
    imagestore: str = ""
    driver: str = ""
    driver_priority: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    driver_options_shown: tuple[str, ...] = ()
    additional_image_stores: tuple[str, ...] = ()
    transient_store: bool = False
    remap_uids: str = ""
    remap_gids: str = ""
    remap_user: str = ""
    remap_group: str = ""
    auto_userns_user: str = ""
    auto_userns_min_size: int = 1024
    auto_userns_max_size: int = 65536
    pull_options: Mapping[str, str] = {}
    disable_volatile: bool = False
    idmapped_mounts: bool = True
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        *,
        graphroot: str | os.PathLike[str] | None = None,
        runroot: str | os.PathLike[str] | None = None,
        driver: str | None = None,
        options: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Config:
        """Find the settings. A root that is not given is taken from the configuration of this user.

        Raises BadConfig: a file that is malformed, cannot be read or is not there, a key of the wrong type, an unknown
        driver, two roots that may not be the same.
        """
        env = os.environ if env is None else env
        idmapped = env.get(_NO_IDMAP) != "yes"
        both_given = graphroot is not None and runroot is not None  # No file has a say: reading one takes long.
        found = cls(graphroot="", runroot="") if both_given else _from_files(env)
        if graphroot is None and runroot is None and not driver and not options:
            return found if idmapped else found.replace(idmapped_mounts=False)
        both = cls(
            graphroot=_absolute(graphroot, found.graphroot),
            runroot=_absolute(runroot, found.runroot),
            idmapped_mounts=idmapped,
        )
        return both.with_driver(driver or "", options or ())

    def with_driver(self, driver: str, options: Sequence[str] = ()) -> Self:
        """Make these settings with another driver ("": any will do), and more driver options (`key=value`)."""
        from layerhold.settings.driver_options import image_stores

        rest, stores = image_stores(options, driver) if options else ((), ())
        return self.replace(
            driver=driver,
            options=(*self.options, *rest),
            driver_options_shown=(*self.driver_options_shown, *options),
            additional_image_stores=(*self.additional_image_stores, *stores),
        )


def resolve(settings: Settings, env: Mapping[str, str]) -> Config:
    """Make a configuration of what was read; relative places stay so, any driver will do. Raises BadConfig."""
    from layerhold.settings import driver_options
    from layerhold.settings.sources import DRIVER, DRIVER_OPTIONS

    notes = list(_notes(settings))
    graphroot, runroot = _roots(settings, env, notes)
    imagestore = settings.text("storage.imagestore")
    if imagestore and imagestore == graphroot:
        origin = getattr(settings.last("storage.imagestore"), "origin", "")
        raise BadConfig(
            f"imagestore {imagestore} must either be not set or be different than graphroot",
            hint=f"storage.imagestore is set in {origin}",
        )
    driver = settings.text(DRIVER)
    config = Config(
        graphroot=graphroot,
        runroot=runroot,
        imagestore=imagestore,
        driver="overlay" if driver == "overlay2" else driver,
        driver_priority=settings.texts("storage.driver_priority"),
        transient_store=settings.yes("storage.transient_store"),
        remap_uids=settings.text(f"{_OPTIONS}.remap-uids"),
        remap_gids=settings.text(f"{_OPTIONS}.remap-gids"),
        remap_user=settings.text(f"{_OPTIONS}.remap-user"),
        remap_group=settings.text(f"{_OPTIONS}.remap-group"),
        auto_userns_user=settings.text(f"{_OPTIONS}.root-auto-userns-user"),
        auto_userns_min_size=settings.count(f"{_OPTIONS}.auto-userns-min-size") or 1024,
        auto_userns_max_size=settings.count(f"{_OPTIONS}.auto-userns-max-size") or 65536,
        pull_options=settings.mapping(f"{_OPTIONS}.pull_options") or {},
        disable_volatile=settings.yes(f"{_OPTIONS}.disable-volatile"),
        notes=tuple(notes),
    )
    if settings.last(DRIVER_OPTIONS) is not None:
        return config.with_driver(config.driver, settings.texts(DRIVER_OPTIONS))
    return config.replace(
        options=tuple(driver_options.usable(settings)),
        driver_options_shown=tuple(driver_options.shown(settings)),
        additional_image_stores=tuple(filter(None, settings.texts(f"{_OPTIONS}.additionalimagestores"))),
    )


def _from_files(env: Mapping[str, str]) -> Config:
    from layerhold.settings.sources import read

    settings = read(env)
    config = resolve(settings, env)
    if wrong := unknown_driver(settings):
        raise wrong
    return config.replace(
        graphroot=os.path.abspath(config.graphroot),
        runroot=os.path.abspath(config.runroot),
        imagestore=config.imagestore and os.path.abspath(config.imagestore),
    )


def unknown_driver(settings: Settings) -> BadConfig | None:
    """Give the error that the driver which is set is none, if so."""
    from layerhold.settings.sources import DRIVER

    named = settings.last(DRIVER)
    if named is None or not named.value or named.value in _DRIVERS:
        return None
    return BadConfig(
        f'{named.origin}: {named.key}: unknown driver "{named.value}"', hint=f"the drivers are: {', '.join(_DRIVERS)}"
    )


# -- places


def _roots(settings: Settings, env: Mapping[str, str], notes: list[str]) -> tuple[str, str]:
    from layerhold.settings import roots

    graph, run = settings.last("storage.graphroot"), settings.last("storage.runroot")
    if roots.user(env) != 0:
        rootless = settings.last("storage.rootless_storage_path")
        if rootless is not None and graph is not None and graph.value:
            notes.append(f"{rootless.origin}: {rootless.key} is passed over, since graphroot is set in {graph.origin}")
        elif rootless is not None:
            graph = rootless
        if passed_over := list(_not_writable([graph, run], env)):
            notes += passed_over
            graph = run = None
    return _place(graph, env) or roots.graphroot(env), _place(run, env) or roots.runroot(env)


def _not_writable(named: Sequence[Setting | None], env: Mapping[str, str]) -> Iterator[str]:
    from layerhold.settings import roots
    from layerhold.settings.sources import is_of_the_system

    for setting in named:
        place = _place(setting, env)
        if setting is not None and place and is_of_the_system(setting.path) and not roots.writable(place):
            name = setting.key.removeprefix("storage.")
            yield f"{setting.path}: {name} {place} is passed over, since this user cannot write it"


def _place(setting: Setting | None, env: Mapping[str, str]) -> str:
    """Give the path that a setting names, "" if none; links are resolved if it is there."""
    from layerhold.settings import roots

    if setting is None or not isinstance(setting.value, str):
        return ""
    path = roots.expand(setting.value, env)
    if "\0" in path:
        raise BadConfig(f"{setting.origin}: {setting.key}: no path can have a zero byte in it")
    if not path:
        return ""
    path = os.path.normpath(path)
    return os.path.realpath(path) if os.path.exists(path) else path


def _absolute(given: str | os.PathLike[str] | None, otherwise: str) -> str:
    if given is None:
        return otherwise
    path = os.fspath(given)
    if not path:
        raise IncompleteOptions("no storage root specified")
    return os.path.abspath(path)


# -- notes


def _notes(settings: Settings) -> Iterator[str]:
    from layerhold.settings.driver_options import NOT_TAKEN

    for key, why in {
        "storage.driver": "overlay2 is an old name of the driver overlay",
        f"{_OPTIONS}.ostree_repo": "nothing is kept in OSTree repositories any more: it is passed over",
        f"{_OPTIONS}.thinpool": "the driver devicemapper takes its options as dm.<key>: the table is passed over",
        **{f"{_OPTIONS}.{option}": "the driver has no such option: it is passed over" for option in NOT_TAKEN},
    }.items():
        setting = settings.last(key)
        if setting is not None and (key != "storage.driver" or setting.value == "overlay2"):
            yield f"{setting.origin}: {key}: {why}"
