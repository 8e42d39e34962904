"""Drivers of other packages: entry points of the group `layerhold.drivers`.

    [project.entry-points."layerhold.drivers"]
    mine = "my_package.driver:open_driver"

The name is the driver's; what it names is called with the roots of the store (choose.Place) and the driver's options,
and gives a `Driver` (base.py) or raises a DriverError. docs/own-drivers.md shows one. Names of Go's drivers stay ours.
"""

from __future__ import annotations

from layerhold.errors import DriverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerhold.drivers.base import Driver
    from layerhold.drivers.choose import Place

    Opener = Callable[[Place, Sequence[str]], Driver]

GROUP = "layerhold.drivers"


def names() -> list[str]:
    """List the drivers that are installed."""
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group=GROUP)})


def opener(name: str) -> Opener | None:
    """Give what opens the driver `name`; None if nobody offers it. Raises DriverError if it cannot be loaded."""
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=name):
        try:
            return point.load()  # type: ignore[no-any-return]
        except Exception as error:
            raise DriverError(f"the driver {name} of {point.value} cannot be loaded: {error!r}") from error
    return None


def named(driver: Driver, name: str) -> Driver:
    """Give the driver if that is its name: a store has directories that are called so. Raises DriverError."""
    if driver.name != name:
        raise DriverError(f"the driver {name} calls itself {driver.name}")
    return driver
