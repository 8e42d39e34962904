"""Where a store is and which driver it wants: from the caller, the environment, and one `storage.conf`.

If the caller names a root, a driver or driver options, no file is looked at. Otherwise the first of these that is there
is read, and only it (config-and-cli.md of containers/storage, `types/options.go`):

    $CONTAINERS_STORAGE_CONF                       must exist if set
    $XDG_CONFIG_HOME/containers/storage.conf       ordinary users; $HOME/.config if XDG_CONFIG_HOME is not set
    /etc/containers/storage.conf
    /usr/share/containers/storage.conf

`STORAGE_DRIVER` replaces the driver, `STORAGE_OPTS` (a comma list) the driver options. An ordinary user is not given
the roots of a system file that he cannot write (Debian ships one that names root's): they are passed over, with a note.
"""

from __future__ import annotations

import os

from layerhold.errors import BadConfig, IncompleteOptions
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

_SYSTEM_FILES = ("/etc/containers/storage.conf", "/usr/share/containers/storage.conf")

_IMAGE_STORES = ("imagestore", "additionalimagestore")

# Keys of [storage.options] that become driver options of the same name.
_GENERAL_OPTIONS = ("size", "skip_mount_home", "mount_program", "mountopt", "ignore_chown_errors", "force_mask")
_DRIVER_TABLES = {
    "overlay": ("ignore_chown_errors", "mountopt", "mount_program", "size", "inodes", "skip_mount_home", "force_mask"),
    "vfs": ("ignore_chown_errors",),
}


class Config(Value):
    """The settings of a store.

    `driver` is "" if any will do. `options` are the driver's, `key=value`, without those that name additional image
    stores: these are `additional_image_stores`, whatever driver is chosen. `driver_options_shown` has both, as given.
    `imagestore` is the root for images if that is not `graphroot`, else "". `remap_*` are ranges (`0:1000:1`, several
    with commas) and names in /etc/subuid and /etc/subgid for the ID maps of layers that are given none. `auto_userns_*`
    are counts of IDs. `pull_options` and `disable_volatile` are for whoever pulls images and makes containers. `notes`
    are sentences for the user, about what was passed over.
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

        Raises BadConfig (a file that is malformed or not there, a key of the wrong type), OSError.
        """
        if graphroot is not None and runroot is not None:
            found = cls(graphroot="", runroot="")  # No file has a say: reading one costs more than a listing.
        else:
            found = _from_files(os.environ if env is None else env)
        if graphroot is None and runroot is None and not driver and not options:
            return found
        roots = cls(graphroot=_absolute(graphroot, found.graphroot), runroot=_absolute(runroot, found.runroot))
        return roots.with_driver(driver or "", options or ())

    def with_driver(self, driver: str, options: Sequence[str]) -> Self:
        """Make these settings with another driver ("": any will do) and driver options (`key=value`)."""
        rest, stores = image_stores(options, driver)
        return self.replace(
            driver=driver, options=rest, driver_options_shown=tuple(options), additional_image_stores=stores
        )


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


def parse_storage_conf(text: str, name: str) -> Config:
    """Read the keys that this version knows out of the text of a `storage.conf`; `name` is for errors.

    A root that the text does not name is "". Raises BadConfig, which names the file, and the line or the key.
    """
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f'decode configuration "{name}": toml: {error}') from error
    storage = _table(document, "storage", name)
    options = _table(storage, "options", name, "storage.")
    driver = _text(storage, "driver", name)
    return Config(
        graphroot=_text(storage, "graphroot", name),
        runroot=_text(storage, "runroot", name),
        driver="overlay" if driver == "overlay2" else driver,
        driver_priority=_texts(storage, "driver_priority", name),
        options=tuple(_driver_options(options, name)),
    )


def _from_files(env: Mapping[str, str]) -> Config:
    home = _default_roots(env)
    path = _file(env)
    found = parse_storage_conf(_read(path), path) if path else Config(graphroot="", runroot="")
    graphroot, runroot = _expand(found.graphroot, env), _expand(found.runroot, env)
    notes = []
    if os.geteuid() != 0 and path in _SYSTEM_FILES:
        for key, root in (("graphroot", graphroot), ("runroot", runroot)):
            if root and not _writable(root):
                notes.append(f"{path}: {key} {root} is passed over, since this user cannot write it")
        if notes:
            graphroot, runroot = "", ""
    options = tuple(filter(None, env["STORAGE_OPTS"].split(","))) if env.get("STORAGE_OPTS") else found.options
    roots = found.replace(graphroot=graphroot or home[0], runroot=runroot or home[1], notes=tuple(notes))
    return roots.with_driver(env.get("STORAGE_DRIVER") or found.driver, options)


def _file(env: Mapping[str, str]) -> str:
    named = env.get("CONTAINERS_STORAGE_CONF")
    if named:
        return named
    own = os.path.join(env.get("XDG_CONFIG_HOME") or os.path.join(_home(env), ".config"), "containers/storage.conf")
    files = _SYSTEM_FILES if os.geteuid() == 0 else (own, *_SYSTEM_FILES)
    return next((file for file in files if os.path.exists(file)), "")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise BadConfig(f'decode configuration "{path}": not UTF-8 text, at byte {error.start}') from error


def _default_roots(env: Mapping[str, str]) -> tuple[str, str]:
    """Say where this user's store is when nothing names a place: (graph root, run root)."""
    user = os.geteuid()
    if user == 0:
        return "/var/lib/containers/storage", "/run/containers/storage"
    data = env.get("XDG_DATA_HOME") or os.path.join(_home(env), ".local/share")
    return os.path.join(data, "containers/storage"), _default_runroot(env, user)


def _default_runroot(env: Mapping[str, str], user: int) -> str:
    runtime = env.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    if env.get("XDG_RUNTIME_DIR") or _private(runtime, user):
        return os.path.join(os.path.realpath(runtime), "containers")
    fallback = os.path.join(env.get("TMPDIR") or "/tmp", f"storage-run-{user}")  # noqa: S108 - Go's place, made 0700
    os.makedirs(fallback, mode=0o700, exist_ok=True)
    if not _private(fallback, user):
        raise BadConfig(f'path "{fallback}" exists and it is not writeable only by the current user')
    return os.path.join(fallback, "containers")


def _private(path: str, user: int) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_uid == user and found.st_mode & 0o170022 == 0o040000


def _home(env: Mapping[str, str]) -> str:
    home = env.get("HOME")
    if not home:
        import pwd

        home = pwd.getpwuid(os.geteuid()).pw_dir
    return os.path.realpath(home)


def _writable(path: str) -> bool:
    """Tell whether `path`, or the nearest directory above it that is there, can be written by this user."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.access(path, os.W_OK | os.X_OK)


def _absolute(given: str | os.PathLike[str] | None, otherwise: str) -> str:
    if given is None:
        return otherwise
    path = os.fspath(given)
    if not path:
        raise IncompleteOptions("no storage root specified")
    return os.path.abspath(path)


def _expand(path: str, env: Mapping[str, str]) -> str:
    """Put in `$UID` and the environment's variables, as the Go library does in paths of a storage.conf."""
    if "$" not in path:
        return path
    import string

    return string.Template(path).safe_substitute({**env, "UID": str(os.geteuid())})


def _driver_options(options: Mapping[str, object], name: str) -> Iterator[str]:
    for store in _texts(options, "additionalimagestores", name, "storage.options."):
        yield f"imagestore={store}"
    for key in _GENERAL_OPTIONS:
        if value := _scalar(options, key, name, "storage.options."):
            yield f"{key}={value}"
    for driver, keys in _DRIVER_TABLES.items():
        table = _table(options, driver, name, "storage.options.")
        for key in keys:
            if value := _scalar(table, key, name, f"storage.options.{driver}."):
                yield f"{driver}.{key}={value}"


def _table(within: Mapping[str, object], key: str, name: str, above: str = "") -> Mapping[str, object]:
    value = within.get(key, {})
    if not isinstance(value, dict):
        raise _wrong(name, above + key, "a table", value)
    return value


def _text(within: Mapping[str, object], key: str, name: str) -> str:
    value = within.get(key, "")
    if not isinstance(value, str):
        raise _wrong(name, f"storage.{key}", "a string", value)
    return value


def _texts(within: Mapping[str, object], key: str, name: str, above: str = "storage.") -> tuple[str, ...]:
    value = within.get(key, [])
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise _wrong(name, above + key, "a list of strings", value)
    return tuple(value)


def _scalar(within: Mapping[str, object], key: str, name: str, above: str) -> str:
    """Give a setting that people write as a string, a boolean or a number, as the text that a driver parses."""
    value = within.get(key, "")
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int):
        raise _wrong(name, above + key, "a string", value)
    return str(value)


def _wrong(name: str, key: str, wanted: str, value: object) -> BadConfig:
    return BadConfig(f'decode configuration "{name}": {key} is to be {wanted}, not {value!r}')
