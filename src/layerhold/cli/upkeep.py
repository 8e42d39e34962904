"""`check`, `dedup`, `gc`: what keeps a store in order.

`check` prints what is damaged on standard output, as lines of an item and its problems, and the sums of them on
standard error. With `-r` or `-f` (which takes containers, too) it goes on to say what it removes, on standard error,
and removes it; `--dry-run` stops before that. The status is 0 if nothing is damaged any more.
"""

from __future__ import annotations

from layerhold.cli import output, progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.cli.flags import Given
    from layerhold.damage import Problems, Report
    from layerhold.repair import Removal
    from layerhold.store import Store

_DAY = "24h"
_DIGITS = "0123456789"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def gc(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """Remove files that no record has; with `--dry-run` print their paths instead."""
    dry_run = given.yes("dry-run")
    with progress.shown() as report:
        found = store.collect_garbage(dry_run=dry_run, progress=report)
    if given.yes("json"):
        output.json([garbage.path for garbage in found] if dry_run else "")
    elif dry_run:
        for garbage in found:
            output.line(garbage.path)
    return 0


def dedup(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """Let equal files share their blocks, and print how many bytes do."""
    try:
        with progress.shown() as report:
            shared = store.dedup(method=given.get("hash-method", "crc"), progress=report)
    except ValueError as error:
        output.complain(str(error))
        return 1
    if given.yes("json"):
        output.json({"Deduped": shared.bytes})
    else:
        output.line(f"Deduplicated {output.size(shared.bytes, ' bytes')}")
    return 0


def check(store: Store, _arguments: Sequence[str], given: Given) -> int:
    """Look for damage, and repair it if that is asked for."""
    try:
        unreferenced_for = seconds(given.get("max") or _DAY)
    except ValueError as error:
        output.complain(str(error))
        return 1
    with progress.shown() as moved:
        report = store.check(layer_contents=not given.yes("quick"), unreferenced_for=unreferenced_for, progress=moved)
    _print(report, given)
    if report.ok:
        return 0
    if any(given.yes(flag) for flag in ("repair", "force", "dry-run")):
        return _repair(store, report, given)
    return _sum_up({noun: len(items) for noun, _key, items in _sections(report)})


def _sections(report: Report) -> tuple[tuple[str, str, Problems], ...]:
    """Give the kinds of items: what each is called, its key in JSON, and what is wrong with such."""
    return (
        ("layer", "Layers", report.layers),
        ("read-only layer", "ROLayers", report.read_only_layers),
        ("image", "Images", report.images),
        ("read-only image", "ROImages", report.read_only_images),
        ("container", "Containers", report.containers),
    )


def _print(report: Report, given: Given) -> None:
    if given.yes("json"):
        # Go's encoder has nothing to say of an error but that it is one.
        counts = {key: {id: len(items[id]) for id in sorted(items)} for _noun, key, items in _sections(report)}
        output.json({key: {id: [{}] * count for id, count in ids.items()} for key, ids in counts.items()})
        return
    for noun, _key, items in _sections(report):
        for id, problems in sorted(items.items()):
            output.line(f"{noun} {id}:")
            for problem in problems:
                output.line(f" {problem.sentence}")


def _sum_up(counts: dict[str, int]) -> int:
    output.complain(", ".join(f"{count} {noun} errors" for noun, count in counts.items()))
    return 1


def _repair(store: Store, report: Report, given: Given) -> int:
    force, dry_run = given.yes("force"), given.yes("dry-run")
    planned = store.repair(report, containers=force, dry_run=True)
    for removal in planned:
        if not removal.error:
            output.complain(f"{'would remove' if dry_run else 'removing'} {removal.kind} {removal.id}")
    done = planned
    if not dry_run:
        with progress.shown() as moved:
            done = store.repair(report, containers=force, progress=moved)
    if errors := [removal.error for removal in done for _ in range(_times(report, removal)) if removal.error]:
        _print_errors(errors, given)
        return 1
    left = {"read-only layer": len(report.read_only_layers), "read-only image": len(report.read_only_images)}
    if not force:
        left["container"] = len(report.containers)
    return _sum_up(left) if any(left.values()) else int(dry_run)


def _times(report: Report, removal: Removal) -> int:
    """How often Go's program tries to remove something: a layer once for each of its problems."""
    return len(report.layers.get(removal.id, [()])) if removal.kind == "layer" else 1


def _print_errors(errors: list[str], given: Given) -> None:
    if given.yes("json"):
        output.json([{}] * len(errors))
    else:
        for error in errors:
            output.complain(error)
    output.complain(errors[0])


def seconds(duration: str) -> float:
    """Read a duration as Go writes it, such as `1h30m` or `-1.5s`. Raises ValueError, in Go's words."""
    sign = duration[:1] if duration[:1] in ("-", "+") else ""
    rest = duration.removeprefix(sign)
    if rest == "0":
        return 0.0
    total = 0.0
    while True:
        number, rest = _number(rest)
        if not number.strip("."):
            raise ValueError(f"time: invalid duration {_quoted(duration)}")
        unit, rest = _unit(rest)
        if unit not in _UNITS:
            what = f"unknown unit {_quoted(unit)}" if unit else "missing unit"
            raise ValueError(f"time: {what} in duration {_quoted(duration)}")
        total += float(number) * _UNITS[unit]
        if not rest:
            return -total if sign == "-" else total


def _number(text: str) -> tuple[str, str]:
    """Cut off the digits at the front, which may have one point among them."""
    end = len(text) - len(text.lstrip(_DIGITS))
    if text[end : end + 1] == ".":
        end = len(text) - len(text[end + 1 :].lstrip(_DIGITS))
    return text[:end], text[end:]


def _unit(text: str) -> tuple[str, str]:
    """Cut off all up to the next digit or point."""
    end = next((at for at, character in enumerate(text) if character in _DIGITS + "."), len(text))
    return text[:end], text[end:]


def _quoted(text: str) -> str:
    from layerhold.records.codec import to_json

    return to_json(text).decode()
