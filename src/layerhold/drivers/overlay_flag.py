"""The note in an overlay home that says whether a mount program wrote layers in it.

    <home>/.has-mount-program     `true` or `false`

Such layers have files where the kernel wants devices (archive/fuse_layers.py), and it would show these. Go's library
reads and writes the note since 1.28; where there is none, it looks through all layers once, as is done here.
"""

from __future__ import annotations

import errno
import os

from layerhold.drivers.overlay_stack import read_text
from layerhold.tree.files import write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = ".has-mount-program"
_MARK = b".wh."
_ATTRIBUTES = ("user.containers.", "user.fuseoverlayfs.")


def is_noted(home: str) -> bool | None:
    """Give what the note says; None if there is none, or none that makes sense."""
    return {"true": True, "false": False}.get(read_text(os.path.join(home, NAME)).strip())


def note(home: str, *, by_program: bool) -> None:
    """Write the note; one that says no can be found out again."""
    write_atomic(os.path.join(home, NAME), b"true" if by_program else b"false", mode=0o600, sync=by_program)


def found(layers: Iterable[str]) -> bool:
    """Tell whether a mount program wrote in the directories of these layers."""
    left = [os.fsencode(layer) for layer in layers]
    while left:
        try:
            if _has_marks(left.pop(), left):
                return True
        except OSError as error:
            # Somebody removes it, or it lies deeper than a path can say, and is not looked into.
            if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                raise
    return False


def _has_marks(directory: bytes, below: list[bytes]) -> bool:
    """Tell whether there are marks in a directory; those in it that are to be looked at next are added to `below`."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_MARK):
                return True
            if entry.is_dir(follow_symlinks=False):
                if _is_marked(entry.path):
                    return True
                below.append(entry.path)
    return False


def _is_marked(directory: bytes) -> bool:
    try:
        return any(name.startswith(_ATTRIBUTES) for name in os.listxattr(directory, follow_symlinks=False))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False
