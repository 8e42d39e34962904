"""`config`: the settings as JSON, as Go's program prints them; and with `--explain`, where each of them comes from.

No store is opened, and flags that name one change nothing: what is printed is what the files and variables set. Without
`--explain` the argument has no effect, as in Go's program.
"""

from __future__ import annotations

import os

from layerhold import config as configuration
from layerhold.cli import output
from layerhold.errors import StorageError
from layerhold.settings import driver_options, storage_conf
from layerhold.settings import sources as settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerhold.cli.flags import Given
    from layerhold.config import Config
    from layerhold.settings.sources import Settings
    from layerhold.settings.storage_conf import Setting

# What is set to something else than it says: variables are put in, links resolved, old names replaced.
_RESOLVED = ("storage.graphroot", "storage.runroot", "storage.driver", "storage.imagestore")
_WITHOUT_EFFECT = {"storage.options.imagestore": "storage.imagestore", "storage.options.use_composefs": ""}


def config(arguments: Sequence[str], given: Given) -> int:
    """Print the settings."""
    explaining = given.yes("explain")
    try:
        found = settings.read(os.environ, arguments[0] if arguments and explaining else "")
        resolved = configuration.resolve(found, os.environ)
    except (StorageError, OSError) as error:
        output.line(f"error initializing: {output.described(error)}")
        if hint := getattr(error, "hint", ""):
            output.complain(f"hint: {hint}")
        return 1
    if explaining:
        for text in _explained(found, resolved):
            output.line(text)
    else:
        for note in resolved.notes:
            output.complain(note)
        output.json(_as_go_has_it(found, resolved))
    return 0


def _as_go_has_it(found: Settings, resolved: Config) -> dict[str, object]:
    """Give Go's StoreOptions: what is not set is left out, apart from the roots and the options of pulls."""
    options = "storage.options"
    rows = {
        "imagestore": resolved.imagestore,
        "driver": resolved.driver,
        "driver-priority": list(resolved.driver_priority),
        "driver-options": list(resolved.driver_options_shown),
        "root_auto_ns_user": resolved.auto_userns_user,
        "auto_userns_min_size": found.count(f"{options}.auto-userns-min-size"),
        "auto_userns_max_size": found.count(f"{options}.auto-userns-max-size"),
        "PullOptions": None,
        "disable-volatile": resolved.disable_volatile,
        "transient_store": resolved.transient_store,
    }
    pulls = found.mapping(f"{options}.pull_options")
    rows["PullOptions"] = None if pulls is None else dict(sorted(pulls.items()))
    kept = {key: value for key, value in rows.items() if value or key == "PullOptions"}
    return {"runroot": resolved.runroot, "root": resolved.graphroot, **kept}


# -- where they come from


def _explained(found: Settings, resolved: Config) -> Iterator[str]:
    yield "files, a later one goes before an earlier one:"
    for path in found.files or ["(none)"]:
        yield f"  {path}"
    yield "settings:"
    places = (resolved.graphroot, resolved.runroot, resolved.driver, resolved.imagestore)
    in_force = dict(zip(_RESOLVED, places, strict=True))
    for key in dict.fromkeys((*_RESOLVED[:3], *sorted(found))):
        yield from _one(key, found.history(key), in_force.get(key))
        if driver_options.is_one(key) and found.last(settings.DRIVER_OPTIONS) is not None:
            yield "    without effect: STORAGE_OPTS goes before it"
    if warnings := list(_warnings(found, resolved)):
        yield "warnings:"
        yield from (f"  {warning}" for warning in warnings)


def _one(key: str, history: Sequence[Setting], in_force: str | None) -> Iterator[str]:
    """Say of one setting what it is, where that comes from, and what it was before."""
    if not history:
        yield f"  {key} = {_written(in_force) if in_force else '(the one that the store has, or the first that works)'}"
        yield "    from nowhere: the default"
        return
    last = history[-1]
    yield f"  {key} = {_written(last.value if in_force is None else in_force)}"
    as_written = f", as {_written(last.value)}" if in_force not in (None, last.value) else ""
    yield f"    from {last.origin}{as_written}"
    for earlier in reversed(history[:-1]):
        yield f"    instead of {_written(earlier.value)} from {earlier.origin}"


def _warnings(found: Settings, resolved: Config) -> Iterator[str]:
    for unknown in found.unknown:
        nearest = _nearest(unknown.key)
        guess = f"; is {nearest} meant?" if nearest else ""
        yield f"{unknown.origin}: {unknown.key}: no such key, it has no effect{guess}"
    for key, instead in _WITHOUT_EFFECT.items():
        if setting := found.last(key):
            guess = f"; is {instead} meant?" if instead else ""
            yield f"{setting.origin}: {key}: it has no effect{guess}"
    if wrong := configuration.unknown_driver(found):
        yield f"{wrong} ({wrong.hint})"
    yield from resolved.notes


def _nearest(key: str) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(key.lower(), (*storage_conf.TABLES, *storage_conf.KEYS), n=1)), "")


def _written(value: object) -> str:
    """Write a value as a file has it."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name} = {_written(item)}' for name, item in value.items())}}}"
    if isinstance(value, str):
        from json import dumps

        return dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)
