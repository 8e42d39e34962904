"""What is set, and by what: the files named `storage.conf`, and variables of the environment.

Read in this order, a later one goes before an earlier one (Go's library 1.64, for root and for users alike):

    storage.conf        the first that is there: of the user, of /etc/containers, of /usr/share/containers
    drop-ins            *.conf of storage.conf.d, storage.rootful.conf.d (root), storage.rootless.conf.d and its <uid>
                        (users) below /usr/share/containers and /etc/containers, and of the user's storage.conf.d; in
                        order of their names, and of two of the same name only the one that stands later in this list
    $CONTAINERS_STORAGE_CONF_OVERRIDE
    $STORAGE_DRIVER, $STORAGE_OPTS

`$CONTAINERS_STORAGE_CONF` is read in place of the first two. A file that a variable names must be there.

A list replaces the list of an earlier file, unless it has the element `{append=true}`; that holds for later files too,
until one has `{append=false}`. `pull_options` of all files are put together.
"""

from __future__ import annotations

import os

from layerhold.errors import BadConfig
from layerhold.settings import roots
from layerhold.settings.storage_conf import Setting, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# The directories of the distribution and of the machine's owner; the user's own comes third.
SYSTEM = ("/usr/share/containers", "/etc/containers")

DRIVER = "storage.driver"
DRIVER_OPTIONS = "driver options"  # Not a key of a file: what $STORAGE_OPTS sets.


class Settings:
    """All that is set. `files` are those that were read; `unknown` are the keys in them that mean nothing."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.unknown: list[Setting] = []
        self._history: dict[str, list[Setting]] = {}
        self._appending: dict[str, bool] = {}

    def add(self, setting: Setting) -> None:
        """Put a setting over what has been set before."""
        before = self.last(setting.key)
        value = setting.value
        if setting.append is not None:
            self._appending[setting.key] = setting.append
        if isinstance(value, tuple) and self._appending.get(setting.key):
            value = (*self.texts(setting.key), *value)
        elif isinstance(value, dict) and before is not None and isinstance(before.value, dict):
            value = {**before.value, **value}
        self._history.setdefault(setting.key, []).append(setting.replace(value=value))

    def __iter__(self) -> Iterator[str]:
        """Give the keys that are set."""
        return iter(self._history)

    def history(self, key: str) -> Sequence[Setting]:
        """Give every setting of `key`; the last one is in force."""
        return self._history.get(key, ())

    def last(self, key: str) -> Setting | None:
        """Give the setting of `key` that is in force."""
        return self._history[key][-1] if key in self._history else None

    def text(self, key: str) -> str:
        """Give a text, "" if it is not set."""
        value = self._value(key)
        return value if isinstance(value, str) else ""

    def yes(self, key: str) -> bool:
        """Give a yes or no."""
        return self._value(key) is True

    def count(self, key: str) -> int:
        """Give a number, 0 if it is not set."""
        value = self._value(key)
        return value if isinstance(value, int) else 0

    def texts(self, key: str) -> tuple[str, ...]:
        """Give a list of texts."""
        value = self._value(key)
        return value if isinstance(value, tuple) else ()

    def mapping(self, key: str) -> dict[str, str] | None:
        """Give a table of texts, None if it is not set."""
        value = self._value(key)
        return value if isinstance(value, dict) else None

    def _value(self, key: str) -> object:
        setting = self.last(key)
        return setting.value if setting else None


def read(env: Mapping[str, str], main: str = "") -> Settings:
    """Read what counts for this user; `main` stands in for `$CONTAINERS_STORAGE_CONF`. Raises BadConfig."""
    settings = Settings()
    for path in files(env, main):
        settings.files.append(path)
        for setting in parse(_content(path), path):
            if setting.known:
                settings.add(setting)
            else:
                settings.unknown.append(setting)
    if env.get("STORAGE_DRIVER"):
        settings.add(Setting(key=DRIVER, value=env["STORAGE_DRIVER"], path="STORAGE_DRIVER"))
    if "STORAGE_OPTS" in env:
        options = tuple(env["STORAGE_OPTS"].split(",")) if env["STORAGE_OPTS"] else ()
        settings.add(Setting(key=DRIVER_OPTIONS, value=options, path="STORAGE_OPTS"))
    return settings


def files(env: Mapping[str, str], main: str = "") -> list[str]:
    """Say which files are to be read, in that order. Raises BadConfig for a directory that cannot be read."""
    override = env.get("CONTAINERS_STORAGE_CONF_OVERRIDE")
    named = main or env.get("CONTAINERS_STORAGE_CONF")
    found = [named] if named else [*_main(env), *_drop_ins(env)]
    return [*found, override] if override else found


def is_of_the_system(path: str) -> bool:
    """Tell whether a file is one that the machine's owner or the distribution made for all users."""
    return any(path.startswith(f"{directory}/") for directory in SYSTEM)


def _main(env: Mapping[str, str]) -> list[str]:
    for directory in (roots.settings(env), *reversed(SYSTEM)):
        path = os.path.join(directory, "storage.conf")
        try:
            os.stat(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(path, error) from error
        return [path]
    return []


def _drop_ins(env: Mapping[str, str]) -> list[str]:
    user = roots.user(env)
    users = ("storage.rootful.conf.d",) if user == 0 else ("storage.rootless.conf.d", f"storage.rootless.conf.d/{user}")
    places = [os.path.join(place, name) for place in SYSTEM for name in ("storage.conf.d", *users)]
    by_name = {}
    for directory in (*places, os.path.join(roots.settings(env), "storage.conf.d")):
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(directory, error) from error
        by_name.update({name: os.path.join(directory, name) for name in names if name.endswith(".conf")})
    return [by_name[name] for name in sorted(by_name) if os.path.isfile(by_name[name])]


def _content(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except IsADirectoryError as error:
        raise BadConfig(f'decode configuration "{path}": read {path}: is a directory') from error
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadConfig(
            f'decode configuration "{path}": toml: line {line}: files must be valid UTF-8',
            hint=f"byte {error.start} is none of a UTF-8 text",
        ) from error


def _unreadable(path: str, error: OSError) -> BadConfig:
    reason = error.strerror or str(error)
    return BadConfig(f"open {path}: {reason[:1].lower()}{reason[1:]}")
