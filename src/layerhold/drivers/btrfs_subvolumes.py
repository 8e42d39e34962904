"""Subvolumes made, copied and removed by path, those inside them too.

A container can make subvolumes in its layer. A snapshot has empty directories in their place, and a subvolume with
others in it cannot be destroyed: so both are done to the inner ones as well. (Go's driver copies none of them: what is
in them is not in layers above.)
"""

from __future__ import annotations

import errno
import os

from layerhold.blocks import contextmanager
from layerhold.tree.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from layerhold.progress import Meter

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Who is not root may not do it, or the kernel cannot.
_CANNOT = (errno.EPERM, errno.EACCES, errno.ENOTTY, errno.EROFS)


def create(path: str) -> None:
    """Make an empty subvolume."""
    from layerhold.linux import btrfs

    above, name = os.path.split(path)
    with opened(above) as at:
        btrfs.create(at, os.fsencode(name))


def is_one(path: str) -> bool:
    """Tell whether a directory on btrfs is a subvolume."""
    from layerhold.linux import btrfs

    return btrfs.is_subvolume(os.lstat(path))


def snapshot(source: str, path: str) -> None:
    """Make a subvolume that has all that the one at `source` has. Raises OSError; then part of it may be there."""
    above, name = os.path.split(path)
    with opened(source) as top, opened(above) as at:
        _snapshot(top, at, os.fsencode(name))


def _snapshot(source: int, at: int, name: bytes) -> None:
    from layerhold.linux import btrfs

    btrfs.snapshot(source, at, name)
    inner = btrfs.nested(source)
    if inner:
        with opened(name, at) as copy:
            for child in inner:
                with _inside(source, child.path) as original, _inside(copy, os.path.dirname(child.path)) as place:
                    os.rmdir(os.path.basename(child.path), dir_fd=place)
                    _snapshot(original, place, os.path.basename(child.path))


def remove_all(directory: str, meter: Meter | None = None, *, gone: Callable[[int, int], None] | None = None) -> None:
    """Remove a directory, with all in it; subvolumes right in it are destroyed, which takes no time.

    `gone` is told of each subvolume before it is destroyed: a descriptor on the file system, and the number.
    """
    from layerhold.linux import btrfs

    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        names = []
    for name in names:
        path = os.path.join(directory, name)
        info = os.lstat(path)
        if btrfs.is_subvolume(info) and os.path.isdir(path):
            destroy(path, gone=gone)
            if meter is not None:
                meter.add(entries=1)
    remove_tree(directory, meter)


def destroy(path: str, *, gone: Callable[[int, int], None] | None = None) -> None:
    """Destroy a subvolume; where this user may not, leave it in a state in which its files can be removed one by one.

    (An empty subvolume goes by `rmdir`, which needs no more rights than for a directory.)
    """
    above, name = os.path.split(path)
    with opened(above) as at:
        _destroy(at, os.fsencode(name), gone)


def _destroy(at: int, name: bytes, gone: Callable[[int, int], None] | None) -> None:
    from layerhold.linux import btrfs

    try:
        with opened(name, at) as top:
            number = btrfs.number(top)
        if gone is not None:
            gone(at, number)
        try:
            btrfs.destroy(at, name)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            _destroy_inner(at, name, gone)
            btrfs.destroy(at, name)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        _let_files_be_removed(at, name)


def _destroy_inner(at: int, name: bytes, gone: Callable[[int, int], None] | None) -> None:
    from layerhold.linux import btrfs

    with opened(name, at) as top:
        for child in btrfs.nested(top):
            with _inside(top, os.path.dirname(child.path)) as place:
                _destroy(place, os.path.basename(child.path), gone)


def _let_files_be_removed(at: int, name: bytes) -> None:
    """Make a subvolume and those in it writable, as far as this user may."""
    from layerhold.linux import btrfs

    try:
        with opened(name, at) as top:
            btrfs.allow_writing(top)
            for child in btrfs.nested(top):
                with _inside(top, os.path.dirname(child.path)) as place:
                    _let_files_be_removed(place, os.path.basename(child.path))
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


@contextmanager
def opened(path: str | bytes, at: int | None = None) -> Iterator[int]:
    """Open a directory; what has its name in the directory `at` must not be a link."""
    fd = os.open(path, _DIRECTORY | (0 if at is None else os.O_NOFOLLOW), dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _inside(top: int, path: bytes) -> Iterator[int]:
    """Open a directory below `top`; no link on the way is followed."""
    from layerhold.linux.files import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

    fd = openat2(top, path or b".", _DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    try:
        yield fd
    finally:
        os.close(fd)
