"""`copy`."""

from __future__ import annotations

from layerhold.cli import output, progress
from layerhold.copying import Place, copy_one, opened
from layerhold.errors import LayerUnknown, StorageError, quoted
from layerhold.progress import metering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.cli.flags import Given
    from layerhold.progress import Callback
    from layerhold.store import Store


def copy(store: Store, arguments: Sequence[str], given: Given) -> int:
    """Copy files into a layer, or out of one."""
    owner = _owner(given.get("chown"))
    *sources, target = [_place(store, word) for word in arguments]
    with progress.shown() as report:
        problem = _copied(sources, target, owner, report)
    if problem:
        output.complain(problem)
    return 1 if problem else 0


def _copied(sources: Sequence[Place], target: Place, owner: tuple[int, int] | None, report: Callback | None) -> str:
    """Copy; give what Go's program says of what could not be copied."""
    with metering(report, "copying") as meter, opened(target, to_write=True) as there:
        for source in sources:
            with opened(source) as one:
                try:
                    copy_one(one, there, owner, meter)
                except (StorageError, OSError) as error:
                    return f'error copying "{one.shown}" to "{there.shown}": {output.described(error)}'
    return ""


def _place(store: Store, word: str) -> Place:
    ref, colon, path = word.partition(":")
    if not colon:
        return Place(path=word)
    try:
        return Place(path=path, layer=store.layers[ref])
    except LayerUnknown as error:
        raise LayerUnknown(ref, f'error finding layer "{ref}"') from error


def _owner(text: str) -> tuple[int, int] | None:
    """Read `UID` or `UID:GID`; a user alone is the group as well."""
    if not text:
        return None
    uid, colon, gid = text.partition(":")
    return _number(uid, "UID"), _number(gid if colon else uid, "GID")


def _number(digits: str, kind: str) -> int:
    problem = "invalid syntax"
    if digits.isascii() and digits.isdigit():
        if len(digits.lstrip("0")) <= 10 and int(digits) < 1 << 32:
            return int(digits)
        problem = "value out of range"
    raise StorageError(f"bad {kind}: strconv.ParseUint: parsing {quoted(digits)}: {problem}")
