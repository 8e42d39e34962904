"""`storage-layers`, `create-storage-layer`: layers as the driver knows them, with a record or without.

`drivers`: which drivers can be used here.
"""

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
                raise DuplicateID(hint=f"layer {id} is there already")
            build.publish()
    if given.yes("json"):
        output.json(id)
    else:
        output.line(id)
    return 0


def survey(_arguments: Sequence[str], given: Given) -> int:
    """Say which drivers can be used here, and what they can do; the store is not opened."""
    import os

    from layerhold.cli import namespace
    from layerhold.config import Config
    from layerhold.drivers.survey import survey as tried

    if os.geteuid() != 0 and (given.yes("unshare") or "unshare" not in given):
        namespace.enter(asked="unshare" in given)  # as all commands do that open a store
    answers = tried(Config.load(graphroot=given.get("graph") or None, runroot=given.get("run") or None).graphroot)
    if given.yes("json"):
        output.json([{name: getattr(answer, name) for name in _FIELDS} for answer in answers])
        return 0
    rows: list[tuple[str, ...]] = [("DRIVER", "USABLE", "QUOTA", "IDMAP", "REFLINK", "NATIVE DIFF", "ORDINARY USERS")]
    for answer in answers:
        can = [_word(has) for has in (answer.quota, answer.idmap, answer.reflink, answer.native_diff)]
        known = (*can, answer.ordinary_users) if answer.usable else ("-",) * 5
        rows.append((answer.driver, _word(answer.usable), *known))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    output.lines(["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows])
    for answer in answers:
        if not answer.usable:
            advice = f" ({answer.advice})" if answer.advice else ""
            output.line(f"{answer.driver}: {answer.reason}{advice}")
    return 0


_FIELDS = ("driver", "usable", "reason", "advice", "quota", "idmap", "reflink", "native_diff", "ordinary_users")


def _word(value: bool) -> str:
    return "yes" if value else "no"
