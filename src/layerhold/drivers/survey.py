"""Which drivers can be used here: each is opened on an empty store of its own, and what it then says is noted.

The store is a directory in the graph root, or in the nearest one above it that is there, since what works depends on
the file system; it is removed again. So each answer is what opening a store with that driver would have come to.
"""

from __future__ import annotations

import os

from layerhold.drivers import third_party
from layerhold.drivers.choose import ORDER, Place, open_driver
from layerhold.errors import StorageError
from layerhold.tree.files import remove_tree
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layerhold.drivers.base import Driver

# Those that Go's library has or had, in its order; after them come those of other packages.
ALL = (*ORDER, "devicemapper", "aufs")
# What an ordinary user can do with a driver that works for root.
_ORDINARY = {"overlay": "in a user namespace", "btrfs": "yes", "vfs": "yes"}


class Answer(Value):
    """What is known of a driver here. `reason`: why it cannot be used, `advice`: what would help.

    `quota`: layers can be limited in size. `idmap`: mounts show other owners than files have, without copies.
    `reflink`: copies share their blocks with what they are copies of. `native_diff`: what a layer changes is known
    without comparing two trees. `ordinary_users`: "yes", "no", "in a user namespace".
    """

    driver: str
    usable: bool
    reason: str = ""
    advice: str = ""
    quota: bool = False
    idmap: bool = False
    reflink: bool = False
    native_diff: bool = False
    ordinary_users: str = "no"


def survey(graphroot: str) -> list[Answer]:
    """Try every driver in `graphroot`. Raises OSError if nothing can be made there."""
    above = graphroot
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    top = os.path.join(above, f".drivers-{os.getpid()}")
    os.mkdir(top, 0o700)
    try:
        names = (*ALL, *(name for name in third_party.names() if name not in ALL))
        return [_tried(name, os.path.join(top, name), graphroot) for name in names]
    finally:
        remove_tree(top)


def _tried(name: str, root: str, graphroot: str) -> Answer:
    place = Place(graphroot=os.path.join(root, "graph"), runroot=os.path.join(root, "run"))
    for directory in (root, place.graphroot, place.runroot):
        os.mkdir(directory, 0o700)
    try:
        driver = open_driver(name, place, options=(), priority=())
    except StorageError as error:
        reason = str(error).replace(place.graphroot, graphroot)
        return Answer(driver=name, usable=False, reason=reason, advice=error.hint)
    except OSError as error:
        return Answer(driver=name, usable=False, reason=error.strerror or str(error))
    try:
        return _answer(driver, root)
    finally:
        driver.shutdown()


def _answer(driver: Driver, root: str) -> Answer:
    return Answer(
        driver=driver.name,
        usable=True,
        quota=driver.features.quota,
        idmap=driver.maps_at_mount(),
        reflink=driver.features.reflink and _shares_blocks(root),
        native_diff=driver.features.native_diff,
        ordinary_users=_ORDINARY.get(driver.name, "no"),
    )


def _shares_blocks(directory: str) -> bool:
    from layerhold.linux.files import ficlone

    one, other = os.path.join(directory, "one"), os.path.join(directory, "other")
    with open(one, "x+b") as source, open(other, "xb") as copy:
        source.write(bytes(4096))
        source.flush()
        try:
            ficlone(copy.fileno(), source.fileno())
        except OSError:
            return False
        return True
