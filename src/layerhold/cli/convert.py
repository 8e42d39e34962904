"""`convert`: a store made anew for another driver."""

from __future__ import annotations

from layerhold import convert as converting
from layerhold.cli import output, progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.cli.flags import Given


def convert(arguments: Sequence[str], given: Given) -> int:
    """Convert a store, and print what came of it."""
    if not given.get("to"):
        output.complain("convert: the driver of the new store is to be named: --to DRIVER")
        return 1
    dry_run = given.yes("dry-run")
    with progress.shown() as report:
        found = converting.convert(
            arguments[0],
            given.get("to"),
            into=given.get("into") or None,
            driver=given.get("storage-driver") or None,
            imagestore=given.get("image-store") or None,
            options=given.all("storage-opt"),
            dry_run=dry_run,
            progress=report,
        )
    if given.yes("json"):
        output.json(
            {
                "from": found.old_driver,
                "to": found.new_driver,
                "root": found.graphroot,
                "layers": found.layers,
                "images": found.images,
                "containers": found.containers,
                "bytes": found.bytes,
            }
        )
        return 0
    things = ((found.layers, "layer"), (found.images, "image"), (found.containers, "container"))
    counted = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in things)
    done = "would be converted" if dry_run else "converted"
    output.line(f"{counted} {done} from {found.old_driver} to {found.new_driver}: {found.graphroot}")
    return 0
