"""`gc`: what keeps a store in order."""

from __future__ import annotations

from layerhold.cli import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.cli.flags import Given
    from layerhold.store import Store


def gc(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """Remove files that no record has; with `--dry-run` print their paths instead."""
    dry_run = given.yes("dry-run")
    found = store.collect_garbage(dry_run=dry_run)
    if given.yes("json"):
        output.json([garbage.path for garbage in found] if dry_run else "")
    elif dry_run:
        for garbage in found:
            output.line(garbage.path)
    return 0
