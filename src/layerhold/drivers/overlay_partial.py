"""Layers whose own directory does not have all that they changed: the rest is found only through the kernel's mount.

With `metacopy=on` a file of which only the owner or mode changed is there without its content, and with
`redirect_dir=on` a directory that was renamed without what is in it; attributes say so
(Documentation/filesystems/overlayfs.rst of the kernel). A store that was used with these options may be read without
them: such files are zeros for Go's programs then.
"""

from __future__ import annotations

import os
import stat

from layerhold.tree.walk import directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def is_partial(diff: str, prefix: str) -> bool:
    """Tell whether files or directories in a layer's `diff` are without what is in them.

    So they are only if the layer was mounted to be written to, which leaves a directory in its `work`.
    """
    if not os.path.isdir(os.path.join(os.path.dirname(diff), "work", "work")):
        return False
    marks = {f"{prefix}metacopy", f"{prefix}redirect"}
    return any(not marks.isdisjoint(names) for names in _attributes(diff))


def _attributes(top: str) -> Iterator[list[str]]:
    """List the names of the attributes of each file and directory in a tree."""
    for directory in directories(top):
        here = f"/proc/self/fd/{directory.fd}"
        yield os.listxattr(directory.fd)
        for name, info in directory.entries:
            if stat.S_ISREG(info.st_mode):
                yield os.listxattr(f"{here}/{name}", follow_symlinks=False)
