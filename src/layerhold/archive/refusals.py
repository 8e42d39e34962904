"""Why an entry of an archive was not brought in: errors that name the entry."""

from __future__ import annotations

import errno
import os

from layerhold.errors import NotPermitted, RefusedEntry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layerhold.archive.entry import Entry

_SQUASH_HINT = 'set ignore_chown_errors = "true" in storage.conf to own everything yourself and leave the rest out'

_WHY = {
    errno.ENOTDIR: "something on the way to it is not a directory",
    errno.ELOOP: "too many links on the way to it",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EEXIST: "file exists",
    errno.ENOENT: "no such file or directory",
    errno.EISDIR: "is a directory",
    errno.EINVAL: "not a usable name",
}


def refused(entry: Entry, why: str) -> RefusedEntry:
    """Make the error for an entry that cannot be brought in."""
    return RefusedEntry(os.fsdecode(entry.name), why)


def not_permitted(entry: Entry, why: str) -> NotPermitted:
    """Make the error for what this user may not do, with the way out."""
    return NotPermitted(f'"{os.fsdecode(entry.name)}": {why}', hint=_SQUASH_HINT)


def unowned(entry: Entry, uid: int, gid: int, error: OSError) -> OSError:
    """Make the error for an owner that could not be set."""
    if error.errno not in (errno.EPERM, errno.EINVAL):
        return error
    return not_permitted(entry, f"this user may not give files to {uid}:{gid}")


def explained(entry: Entry, error: OSError) -> OSError | RefusedEntry:
    """Make of a failed call an error that says which entry it was about."""
    if error.errno in _WHY:
        return refused(entry, _WHY[error.errno])
    if error.errno in (errno.EPERM, errno.EACCES):
        return not_permitted(entry, error.strerror or "refused")
    return OSError(error.errno, error.strerror, os.fsdecode(entry.name))
