"""What an overlay layer stands on.

    <home>/<id>/lower         the links of the layers below, nearest first: `l/<26 characters>`, `:` between
    <home>/<id>/lower-layers  their IDs; goes before `lower` where it is (Go since 1.64)
    <home>/<id>/diff1/, ...   older uppers, nearest first, in stores made before 1.40

Where a layer is kept as composefs (Go since 1.49), its `diff` has the contents of files by their checksums, and is no
tree: that is in `<home>/<id>/composefs-data`. Such a layer is refused by name, and what stands on it.

Nothing here is locked: a layer's stack does not change while the layer is there.
"""

from __future__ import annotations

import os

from layerhold.drivers import overlay_links
from layerhold.drivers.base import is_safe
from layerhold.drivers.overlay_places import refuse_composefs
from layerhold.errors import DriverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from layerhold.drivers.homes import Homes


class Stack:
    """The stacks of all layers in `homes`; `restore` makes lost links again."""

    def __init__(self, homes: Homes, restore: Callable[[], None]) -> None:
        self._homes = homes
        self._restore = restore

    def directory(self, id: str) -> str:
        """Say where layer `id` is."""
        return os.path.join(self._homes.of(id), id)

    def parent(self, id: str) -> str | None:
        """Give the layer that `id` stands on."""
        return next(iter(self.ids_below(id)), None)

    def ids_below(self, id: str) -> list[str]:
        """List the layers below `id`, nearest first. Raises DriverError for a link that leads nowhere."""
        named = read_text(os.path.join(self.directory(id), "lower-layers"))
        if named:
            return named.split(":")
        links = read_text(os.path.join(self.directory(id), "lower"))
        return [self._behind(id, link) for link in links.split(":")] if links else []

    def lowers(self, id: str) -> tuple[str, ...]:
        """List the directories below layer `id`, nearest first. Raises DriverError, which names one that is missing."""
        found = [*older_uppers(self.directory(id))]
        for below in self.ids_below(id):
            directory = self.directory(below) if is_safe(below, frozenset()) else ""
            diff = os.path.join(directory, "diff")
            if not directory or not os.path.isdir(diff):
                raise DriverError(f"layer {id}: the layer {below} below it is missing ({diff})")
            refuse_composefs(below, directory)
            found += [diff, *older_uppers(directory)]
        return tuple(found)

    def files_over(self, parent: str) -> dict[str, str]:
        """Give the files that tell of the stack of a new layer over `parent`. Raises DriverError."""
        directory = self.directory(parent)
        link = overlay_links.read_link_name(directory)
        if not link:
            raise DriverError(f"layer {parent}: its file {directory}/link is damaged or missing")
        below = read_text(os.path.join(directory, "lower"))
        return {
            "lower": f"l/{link}:{below}" if below else f"l/{link}",
            "lower-layers": ":".join([parent, *self.ids_below(parent)]),
        }

    def _behind(self, id: str, link: str) -> str:
        """Give the layer that a link stands for."""
        path = self._found(link)
        if not path:
            self._restore()
            path = self._found(link)
        try:
            return os.path.basename(os.path.dirname(os.readlink(path)))
        except OSError as error:
            raise DriverError(f"layer {id}: the layer that {link} stands for is missing: {error.strerror}") from error

    def _found(self, link: str) -> str:
        paths = [os.path.join(home, link) for home in self._homes.every]
        return next((path for path in paths if os.path.lexists(path)), "")


def older_uppers(directory: str) -> Iterator[str]:
    """List the older uppers in a layer's directory, nearest first."""
    number = 1
    while os.path.isdir(path := os.path.join(directory, f"diff{number}")):
        yield path
        number += 1


def read_text(path: str) -> str:
    """Give what a small file says, or "" if it is not there."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""
