"""Layers of the overlay driver in the making: what is on the disk when, and how they come into their place."""

from __future__ import annotations

import os
import stat

from layerhold.drivers import overlay_links
from layerhold.tree.durable import settle_names, settle_tree, sync_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from layerhold.drivers.base import Contents

# As Go since 1.24: root may write all the same. An ordinary user needs the right to, or a container could add nothing.
_BASE_MODE, _BASE_MODE_OF_OTHERS = 0o555, 0o755


def make(
    place: str, below: str, *, root: tuple[int, int], files: Mapping[str, str], mask: int | None, overridden: bool
) -> None:
    """Make the directories of a layer in `place`, which is there, and `files` with their texts.

    The layer's own files get the owner and mode of those `below` ("" in a base layer: `root`). With `mask` that is
    their mode, and what it would have been is written beside it; so it may be in those `below` if `overridden`.
    """
    ordinary = os.geteuid() != 0
    owner, mode = root, _BASE_MODE if not ordinary and mask is None else _BASE_MODE_OF_OTHERS
    if below:
        info = _meant(below) if overridden else os.stat(below)
        owner, mode = (info.st_uid, info.st_gid), stat.S_IMODE(info.st_mode)

    def directory(path: str, owner: tuple[int, int]) -> None:
        os.mkdir(path, 0o700)
        if not ordinary:
            os.chown(path, *owner)

    if not ordinary:
        os.chown(place, *root)
    for name in ("work", "merged") if below else ("work", "merged", "empty"):
        directory(os.path.join(place, name), owner)
    diff = os.path.join(place, "diff")
    directory(diff, owner)
    os.chmod(diff, mode if mask is None else mask)
    if mask is not None:
        from layerhold.archive import override_stat

        meant = override_stat.Override(uid=owner[0], gid=owner[1], mode=mode, kind=stat.S_IFDIR)
        os.setxattr(diff, override_stat.KEY, meant.text())
    for name, text in files.items():
        with open(os.path.join(place, name), "x") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)


def _meant(directory: str) -> os.stat_result:
    from layerhold.archive.override_stat import stat_of

    return stat_of(directory)


class NewLayer:
    """A layer's directory `place`, which is to become `final`; `make_room` throws away what a crash left there.

    `files` are the names of the files beside its `diff`. `copied`: there are copies of files in it.
    """

    def __init__(
        self,
        contents: Contents,
        place: str,
        final: str,
        make_room: Callable[[], None],
        *,
        files: Sequence[str],
        copied: bool,
    ) -> None:
        self.contents = contents
        self._place = place
        self._files = files
        self._copied = copied
        self._final = final
        self._make_room = make_room

    def sync(self, *, filled: bool = True) -> None:
        """Make the files durable."""
        if filled or self._copied:
            sync_tree(self._place)
        else:
            settle_tree(self._place, self._files)

    def publish(self) -> None:
        """Move the directory into its place, then make its link; what a crash left there is thrown away."""
        self._make_room()
        os.rename(self._place, self._final)
        home, id = os.path.split(self._final)
        overlay_links.make_link(home, id, overlay_links.read_link_name(self._final))
        settle_names(home)


class ChangedLayer:
    """A layer's own files, copied aside and changed; the directory `copy`, which they are in, is to become `final`."""

    def __init__(self, contents: Contents, copy: str, final: str) -> None:
        self.contents = contents
        self._copy = copy
        self._final = final

    def sync(self, *, filled: bool = True) -> None:  # noqa: ARG002 - it is a copy
        """Make the files durable."""
        sync_tree(self._copy)

    def publish(self) -> None:
        """Swap the two directories in one step; the old one goes with the place aside."""
        from layerhold.linux.files import RENAME_EXCHANGE, renameat2

        renameat2(self._copy, self._final, RENAME_EXCHANGE)
        settle_names(os.path.dirname(self._final))
