"""When what was written is on the disk, and in which order.

`settle_file` and `sync_directory` make one change durable, `sync_tree` all of them. Each waits for the disk, twice for
a file that is new: its content, then its name. Where a file system has a journal, changes of names get to the disk in
the order in which they were made, and each only after the content that is there already. So there it is enough to hand
the content to the disk before the name is changed (`push`), which waits for no commit of the journal: what is synced
later takes along all that was done before it, and until then a loss of power leaves the old file or the new.

    ext3, ext4   if they have a journal, which they can be made without (`journal_task` in sysfs says so)
    xfs          always
    tmpfs        has no disk

On others (btrfs syncs only what the synced file depends on) each step is synced by itself.
"""

from __future__ import annotations

import errno
import os

from layerhold.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# By device and ID of a file system: a device may get another one later.
_known: dict[tuple[int, int], bool] = {}


def keeps_order(path: str) -> bool:
    """Tell whether `path` is on a file system that brings changes to the disk in the order in which they were made."""
    key = os.stat(path).st_dev, os.statvfs(path).f_fsid
    found = _known.get(key)
    if found is None:
        kind = mountinfo.filesystem_of(path)
        found = _known[key] = kind in ("xfs", "tmpfs") or (kind in ("ext3", "ext4") and _has_journal(key[0]))
    return found


def _has_journal(device: int) -> bool:
    try:
        name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
        with open(f"/sys/fs/ext4/{name}/journal_task", "rb") as file:
            return file.read().strip().isdigit()  # the number of the journal's thread; "<none>"
    except OSError:
        return False


def settle_file(fd: int, directory: str) -> None:
    """Have the content of the new file `fd` on the disk before its name: it is about to be renamed in `directory`."""
    if not (keeps_order(directory) and push(fd)):
        os.fdatasync(fd)


def settle_names(directory: str) -> None:
    """Make sure that names which were changed in `directory` are durable when what is changed later is."""
    if not keeps_order(directory):
        sync_tree(directory)


def settle_tree(place: str, files: Sequence[str]) -> None:
    """The same for all that is new in the directory `place`: directories, and in itself `files`, which are small."""
    if not (keeps_order(place) and all(_pushed(os.path.join(place, name)) for name in files)):
        sync_tree(place)


def push(fd: int) -> bool:
    """Hand the content of a file to the disk, and wait until it has that; False if the system cannot.

    The file's size and name are for the journal. Raises OSError (EIO, ENOSPC).
    """
    from layerhold.linux.files import sync_file_range

    try:
        sync_file_range(fd)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.ESPIPE):
            raise
        return False
    return True


def _pushed(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return push(fd)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: str) -> None:
    """Make everything on the file system of `path` durable: one journal commit instead of one for each file."""
    from layerhold.linux.files import syncfs

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
