"""`status`, `version`, `wipe`, `shutdown`."""

from __future__ import annotations

from layerhold.cli import output, progress
from layerhold.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerhold.cli.flags import Given
    from layerhold.store import Store


def status(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """Say where the store is, and what its driver can do; on standard error, as Go's program does."""
    return _pairs(store.status(), given)


def version(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """Print the version; on standard error, as Go's program does."""
    return _pairs(store.version(), given)


def wipe(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """Remove everything."""

    def action() -> None:
        with progress.shown() as report:
            store.wipe(progress=report)

    return _done("wipe", action, given)


def shutdown(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """Undo what was set up for the driver."""
    return _done("shutdown", lambda: store.shutdown(force=given.yes("force")), given)


def _pairs(pairs: Sequence[tuple[str, str]], given: Given) -> int:
    if given.yes("json"):
        output.json([list(pair) for pair in pairs])
    else:
        for key, value in pairs:
            output.complain(f"{key}: {value}")
    return 0


def _done(name: str, action: Callable[[], None], given: Given) -> int:
    try:
        action()
    except (StorageError, OSError) as error:
        if given.yes("json"):
            output.json({})
        else:
            output.complain(f"{name}: {output.described(error)}")
        return 1
    if given.yes("json"):
        output.json("")
    return 0
