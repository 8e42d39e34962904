"""`mount`, `unmount`, `mounted`."""

from __future__ import annotations

import os

from layerhold.cli import output
from layerhold.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerhold.cli.flags import Given
    from layerhold.store import Store


def mount(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Mount layers or containers, and print where."""
    results = []
    for ref in arguments:
        try:
            path, error = os.fspath(store.mount(ref, label=given.get("label"))), ""
        except (StorageError, OSError) as failure:
            path, error = "", output.described(failure)
        results.append({"id": ref, "mountpoint": path, "error": error})
    if given.yes("json"):
        output.json(results)
    else:
        for result in results:
            output.line(result["mountpoint"])
            if result["error"]:
                output.complain(f"{result['error']} while mounting {result['id']}")
    return 1 if any(result["error"] for result in results) else 0


def unmount(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Unmount layers or containers."""

    def one(ref: str) -> str:
        still = store.unmount(ref, force=given.yes("force"))
        return "" if still else f"{ref} mountpoint unmounted"

    return _each(arguments, given, one, "while unmounting {}")


def mounted(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Say which layers or containers are mounted."""
    return _each(
        arguments, given, lambda ref: f"{ref} mounted" if store.mounted(ref) else "", "checking if {} is mounted"
    )


def _each(refs: Sequence[str], given: Given, one: Callable[[str], str], doing: str) -> int:
    results = []
    for ref in refs:
        try:
            said, error = one(ref), ""
        except (StorageError, OSError) as failure:
            said, error = "", output.described(failure)
        if said:
            output.line(said)
        results.append({"id": ref, "error": error})
    if given.yes("json"):
        output.json(results)
    else:
        for result in results:
            if result["error"]:
                output.complain(f"{result['error']} {doing.format(result['id'])}")
    return 1 if any(result["error"] for result in results) else 0
