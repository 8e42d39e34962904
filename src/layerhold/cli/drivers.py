"""`storage-layers`, `create-storage-layer`: layers as the driver knows them, with a record or without."""

from __future__ import annotations

from layerhold.cli import output, progress
from layerhold.cli.create import mappings
from layerhold.errors import DuplicateID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.cli.flags import Given
    from layerhold.store import Store


def layers(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """List the layers that the driver has."""
    found = sorted(store.driver.ids())
    if given.yes("json"):
        output.json(found)
    else:
        for id in found:
            output.line(id)
    return 0


def create(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Make a layer that only the driver knows; the parent is an ID of the driver's, not a name."""
    from layerhold.drivers.base import LayerSpec
    from layerhold.identifiers import check_id, new_id

    driver = store.driver
    id = check_id(given.get("id"), reserved=driver.reserved) if given.get("id") else new_id()
    maps = mappings(given)
    spec = LayerSpec(writable=not given.yes("readonly"), label=given.get("label"), mappings=maps)
    with (
        progress.shown() as report,
        driver.building(id, (arguments[0] if arguments else "") or None, spec, report) as build,
    ):
        build.sync()
        with store.writing() as held:
            if driver.exists(id) or id in held.layers:
                raise DuplicateID()
            build.publish()
    if given.yes("json"):
        output.json(id)
    else:
        output.line(id)
    return 0
