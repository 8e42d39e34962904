"""Entries of an archive into a tree, as the Go program does it, with what a hostile archive can do taken away.

A name is what `chroot` would make of it: absolute names start at the root, links inside are followed. A name that was
there is replaced, except that a directory stays where the entry is a directory. Directories that no entry made are
0755 and belong to the mapped root. Whiteouts: `whiteouts.py`. Names under `.wh..wh.` at the top are AUFS's own and left
out where the tree is whole.

Refused, with the entry's name: the same name twice; a ".." that climbs above the root; a name under something that is
no directory; a hard link to what is not there; a kind of entry that is none; what would take away files that the same
archive brought, since the layer could not be given back then.

Order for each entry: owner (changing it clears setid bits and capabilities), attributes (a file without the right to
write takes none from its owner), mode, times. The mode is always set, and the owner compared with what new files
get, so neither the umask nor a setgid directory matters. Default ACLs would, so what a file inherited from one is
removed.

An ordinary user may not give files away, make devices, or set `trusted.*` and `security.*` attributes. He gets an error
that says so, or with `squash` owners stay his and the rest is left out and counted.

Memory: 64 bits of each name, for "the same name twice". The hash is keyed by the interpreter, so nobody can prepare two
names with the same one; by chance a million names have two with a probability of 3 in 100 million, and then a good
archive is refused, once.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from layerhold.archive.entry import clean, climbs
from layerhold.archive.refusals import explained, not_permitted, refused, unowned
from layerhold.archive.whiteouts import (
    ERASE,
    FUSE_MARKS,
    NO_DELETIONS,
    OPAQUE_NAME,
    OVERLAY_MARKS,
    PREFIX,
    Erase,
    FileMarks,
    OverlayMarks,
    is_mark,
    is_of_aufs,
    join,
)
from layerhold.digests import crc64
from layerhold.errors import StorageError
from layerhold.linux.idmap import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from layerhold.archive.entry import Entry
    from layerhold.archive.whiteouts import Deletions
    from layerhold.ids.mappings import IdMappings
    from layerhold.tree.root import Root

__all__ = ["ERASE", "NO_DELETIONS", "OVERLAY_MARKS", "Extractor"]

# The largest file that ext4 takes. Holes cost nothing here, but whoever reads the file back reads them all.
_LARGEST_SPARSE = 1 << 44
_LARGEST_ID = (1 << 32) - 2  # the one after it means "leave it"
_LARGEST_TIME = (1 << 63) - 1
_KINDS = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}
_SKIPPED_XATTRS = {b"security.selinux"}  # the label is the machine's business, as in Go
_ACCESS_ACL, _DEFAULT_ACL = b"system.posix_acl_access", b"system.posix_acl_default"
_MAX_CACHED_OWNERS = 4096


class Extractor:
    """Unpacks entries into `root` (opened for filling), as a context manager; a block that ends well is `finish`ed."""

    def __init__(
        self,
        root: Root,
        *,
        deletions: str,
        xattr_prefix: str = "trusted.overlay.",
        mappings: IdMappings | None = None,
        squash: bool = False,
    ) -> None:
        self.left_out = 0
        self._root = root
        self._mappings = None if mappings is None or mappings.identity else mappings
        self._ordinary = os.geteuid() != 0
        self._squash = squash
        # Root of a user namespace goes without devices and `trusted.` attributes, as in Go.
        self._leaves_out = squash or (not self._ordinary and in_user_namespace())
        self._seen: set[int] = set()
        prior = not root.is_empty()
        self._erase = deletions == ERASE
        self._has_marks = deletions != NO_DELETIONS
        self._deletions: Deletions
        if deletions == OVERLAY_MARKS:
            self._deletions = OverlayMarks(xattr_prefix, prior=prior)
        else:
            self._deletions = FileMarks(prior=prior) if deletions == FUSE_MARKS else Erase()
        self._inherits_acls = prior or _DEFAULT_ACL in root.xattrs(b"")
        self._owners: dict[tuple[int, int], tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is None:
            self.finish()

    def add(self, entry: Entry, content: Iterator[memoryview]) -> int | None:
        """Unpack one entry; return the CRC-64 of its content if that is now a file which gives it back as it was.

        Raises RefusedEntry, NotPermitted, StorageError (an owner that is not mapped), OSError with the entry's name.
        """
        try:
            return self._add(entry, content)
        except StorageError:
            raise
        except OSError as error:
            raise explained(entry, error) from error

    def keeps(self, entry: Entry) -> bool:
        """Tell whether the content of `entry` will be a file from which it can be read back as it was."""
        if entry.kind != b"0" or entry.sparse is not None:
            return False
        path = entry.path
        return path.find(PREFIX) < 0 or not (is_mark(path) or self._is_private(path))

    def finish(self) -> None:
        """Give the directories their times and modes, once all entries are in."""
        self._deletions.finish(self._root)
        self._root.settle()

    def _add(self, entry: Entry, content: Iterator[memoryview]) -> int | None:
        path, kind = entry.path, entry.kind
        if kind == b"g":
            return None
        self._check_name(entry)
        if self._has_marks and path.find(PREFIX) >= 0:
            if self._is_private(path):
                return None
            if is_mark(path):
                self._whiteout(entry)
                return None
        if kind == b"0":
            return self._file(entry, content)
        if kind == b"5":
            self._directory(entry)
        elif kind == b"2":
            self._symlink(entry)
        elif kind == b"1":
            self._hard_link(entry)
        elif kind in _KINDS:
            self._node(entry, _KINDS[kind])
        elif entry.sparse is not None:
            self._file(entry, content)
        else:
            raise refused(entry, f"unhandled tar header type {kind[0]}")
        return None

    def _check_name(self, entry: Entry) -> None:
        path, name = entry.path, entry.name
        # What `clean` left as it is has no component "..".
        if name is not path and name.find(b"..") >= 0 and climbs(name):
            raise refused(entry, 'leads out of the layer by ".."')
        if 0 in path:
            raise refused(entry, "has a NUL in its name")
        seen = self._seen
        before = len(seen)
        seen.add(hash(path))
        if len(seen) == before:
            raise refused(entry, "duplicates of file paths not supported")

    def _is_private(self, path: bytes) -> bool:
        """Tell whether a name is AUFS's own and no part of a layer."""
        return self._erase and is_of_aufs(path)

    def _brought(self, path: bytes) -> bool:
        return hash(path) in self._seen

    # --- one kind of entry each

    def _file(self, entry: Entry, content: Iterator[memoryview]) -> int | None:
        path = entry.path
        _refuse_root(entry)
        try:
            fd = self._root.create(path)
        except (FileExistsError, FileNotFoundError):
            self._clear(entry)
            fd = self._root.create(path)
        try:
            crc = None
            if entry.sparse is not None:
                _write_sparse(fd, entry, content)
            else:
                crc = _write(fd, content)
            if self._inherits_acls:
                _drop_acl(fd, _ACCESS_ACL)
            if self._squash:
                self._own_squashed(entry, fd)
            else:
                owner = self._owner(entry)
                if owner != self._root.owner_of_new(fd):
                    _own(entry, fd, owner)
            if entry.xattrs:
                self._set_xattrs(entry, fd)
            os.fchmod(fd, entry.mode & 0o7777)
            if self._ordinary and entry.mode & 0o2000:
                self._check_setgid(entry, os.fstat(fd))
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)
        return crc

    def _directory(self, entry: Entry) -> None:
        path = entry.path
        if path:
            self._make_directory(entry)
        fd = self._root.open_directory(path)
        try:
            if self._inherits_acls:
                _drop_acl(fd, _ACCESS_ACL)
                _drop_acl(fd, _DEFAULT_ACL)
            if self._squash:
                self._own_squashed(entry, fd)
            else:
                _own(entry, fd, self._owner(entry))
            if entry.xattrs:
                self._set_xattrs(entry, fd)
            self._root.set_directory_mode(fd, entry.mode & 0o7777)
            if self._ordinary and entry.mode & 0o2000:
                self._check_setgid(entry, os.fstat(fd))
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)

    def _make_directory(self, entry: Entry) -> None:
        root, path = self._root, entry.path
        try:
            root.mkdir(path, 0o700)
            return
        except FileNotFoundError:
            self._make_parents(path)
            root.mkdir(path, 0o700)
            return
        except FileExistsError:
            old = root.lstat(path)
        if not stat.S_ISDIR(old.st_mode):
            root.remove(path)
            root.mkdir(path, 0o700)
            self._deletions.replaced(root, path, old)

    def _symlink(self, entry: Entry) -> None:
        if b"\0" in entry.linkname or not entry.linkname:
            raise refused(entry, "is a symbolic link to no usable name")
        _refuse_root(entry)
        try:
            self._root.symlink(entry.linkname, entry.path)
        except (FileExistsError, FileNotFoundError):
            self._clear(entry)
            self._root.symlink(entry.linkname, entry.path)
        self._set_by_name(entry, with_mode=False)

    def _hard_link(self, entry: Entry) -> None:
        name = entry.linkname
        target = clean(name)
        if b"\0" in name or not target or (b".." in name and climbs(name)):
            raise refused(entry, f'invalid hardlink "{os.fsdecode(entry.path)}" -> "{os.fsdecode(name)}"')
        if target == entry.path:
            raise refused(entry, "is a hard link to itself")
        self._clear(entry)
        try:
            self._root.link(target, entry.path)
            found = self._root.lstat(entry.path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.ELOOP, errno.EINVAL):
                raise refused(entry, f'hard link to "{os.fsdecode(name)}": {error.strerror}') from error
            raise
        self._set_by_name(entry, with_mode=not stat.S_ISLNK(found.st_mode), found=found)

    def _node(self, entry: Entry, kind: int) -> None:
        device = 0
        if kind != stat.S_IFIFO:
            try:
                device = os.makedev(entry.major, entry.minor)
            except (OverflowError, ValueError):
                raise refused(entry, f"no device has the number {entry.major}, {entry.minor}") from None
            if self._ordinary and self._squash:
                self.left_out += 1
                return
        self._clear(entry)
        try:
            self._root.mknod(entry.path, kind | 0o600, device)
        except PermissionError as error:
            if kind == stat.S_IFIFO:
                raise
            if self._leaves_out:
                self.left_out += 1
                return
            raise not_permitted(entry, "this user may not make device nodes") from error
        self._set_by_name(entry, with_mode=True)

    def _whiteout(self, entry: Entry) -> None:
        directory, _, base = entry.path.rpartition(b"/")
        self._make_parents_of_mark(entry.path)
        if base == OPAQUE_NAME:
            self._deletions.hide_below(self._root, directory, self._brought)
            return
        name = base[len(PREFIX) :]
        if name in (b"", b".", b".."):
            raise refused(entry, "hides no name")
        path = join(directory, name)
        if self._deletions.hide(self._root, path, self._brought) and not self._squash:
            self._root.set_owner(path, *self._owner(entry))

    # --- the way there

    def _clear(self, entry: Entry) -> None:
        """Make the place for `entry`: the directories on the way, and nothing in it."""
        _refuse_root(entry)
        try:
            gone = self._root.remove(entry.path, keep=self._brought_below(entry.path))
        except FileNotFoundError:
            self._make_parents(entry.path)
            return
        if not gone:
            raise refused(entry, "would take the place of a directory with files of this archive")

    def _brought_below(self, path: bytes) -> Callable[[bytes], bool]:
        # The path itself is in the set by now; what is there is what was there before.
        return lambda found: found != path and self._brought(found)

    def _make_parents(self, path: bytes) -> None:
        if self._ordinary and self._squash:
            owner = None
        elif self._mappings is not None:
            owner = self._mappings.root()
        else:
            owner = None if self._ordinary else (0, 0)
        self._root.make_parents(path, 0o755, owner)

    def _make_parents_of_mark(self, path: bytes) -> None:
        with suppress(NotADirectoryError):  # whether that is an error is for the mark to say
            self._make_parents(path)

    # --- owner, mode, attributes, times

    def _owner(self, entry: Entry) -> tuple[int, int]:
        owner = entry.uid, entry.gid
        if not (0 <= owner[0] <= _LARGEST_ID and 0 <= owner[1] <= _LARGEST_ID):
            raise refused(entry, f"no owner has the numbers {owner[0]}:{owner[1]}")
        if self._mappings is None:
            return owner
        mapped = self._owners.get(owner)
        if mapped is None:
            if len(self._owners) >= _MAX_CACHED_OWNERS:
                self._owners.clear()
            try:
                mapped = self._owners[owner] = self._mappings.to_host(*owner)
            except StorageError as error:
                raise refused(entry, str(error)) from error
        return mapped

    def _own_squashed(self, entry: Entry, fd: int) -> None:
        if not self._ordinary:
            try:
                os.fchown(fd, *self._owner(entry))
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise

    def _set_by_name(self, entry: Entry, *, with_mode: bool, found: os.stat_result | None = None) -> None:
        """Set owner, mode, attributes and times of what cannot be opened; `found` is what it has, if it is not new."""
        root, path = self._root, entry.path
        # A hard link's header seldom repeats the capabilities that a change of owner, even to the same, would clear.
        as_it_is = found is not None and (found.st_uid, found.st_gid) == self._owner(entry)
        if not as_it_is and not (self._squash and self._ordinary):
            uid, gid = self._owner(entry)
            try:
                root.set_owner(path, uid, gid)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL) or not self._squash:
                    raise unowned(entry, uid, gid, error) from error
        if entry.xattrs:
            self._set_xattrs(entry, None)
        if with_mode:
            root.set_mode(path, entry.mode & 0o7777)
            if self._ordinary and entry.mode & 0o2000:
                self._check_setgid(entry, root.lstat(path))
        root.set_times(path, *_times(entry))

    def _check_setgid(self, entry: Entry, info: os.stat_result) -> None:
        """The kernel drops the bit without a word where the group is not this user's."""
        if not info.st_mode & 0o2000:
            if self._squash:
                self.left_out += 1
                return
            raise not_permitted(entry, f"this user may not set the setgid bit for group {info.st_gid}")

    def _set_xattrs(self, entry: Entry, fd: int | None) -> None:
        for key, value in entry.xattrs.items():
            if key in _SKIPPED_XATTRS:
                continue
            if not key or b"\0" in key:
                raise refused(entry, "has an attribute with no usable name")
            try:
                if fd is None:
                    self._root.set_xattr(entry.path, key, value)
                else:
                    os.setxattr(fd, key, value)
            except OSError as error:
                self._without_xattr(entry, key, error)
            if key == _DEFAULT_ACL:
                self._inherits_acls = True

    def _without_xattr(self, entry: Entry, key: bytes, error: OSError) -> None:
        """Go on without an attribute where that is the custom, or raise."""
        if error.errno == errno.ENOTSUP:
            return
        name = os.fsdecode(key)
        if error.errno in (errno.EPERM, errno.EACCES):
            if self._leaves_out and key.startswith((b"trusted.", b"security.")):
                self.left_out += 1
                return
            raise not_permitted(entry, f"this user may not set the attribute {name}") from error
        raise OSError(error.errno, f"attribute {name}: {error.strerror}", os.fsdecode(entry.name)) from error


def _refuse_root(entry: Entry) -> None:
    if not entry.path:
        raise refused(entry, "the layer's root must be a directory")


def _own(entry: Entry, fd: int, owner: tuple[int, int]) -> None:
    uid, gid = owner
    try:
        os.fchown(fd, uid, gid)
    except OSError as error:
        raise unowned(entry, uid, gid, error) from error


def _times(entry: Entry) -> tuple[int, int]:
    """Give atime and mtime as Go sets them: what is before 1970, or beyond 2262, becomes 1970."""
    mtime = entry.mtime if 0 <= entry.mtime <= _LARGEST_TIME else 0
    atime = entry.atime
    if atime is None or not mtime < atime <= _LARGEST_TIME:
        atime = mtime
    return atime, mtime


def _write(fd: int, content: Iterator[memoryview]) -> int:
    """Write the content of a file, and give its CRC-64."""
    crc = 0
    for block in content:
        crc = crc64(block, crc)
        written = os.write(fd, block)
        while written < len(block):
            written += os.write(fd, block[written:])
    return crc


def _write_sparse(fd: int, entry: Entry, content: Iterator[memoryview]) -> None:
    """Write the data regions of a sparse file where they belong; what is between them stays a hole."""
    if entry.real_size > _LARGEST_SPARSE:
        raise refused(entry, f"expands to {entry.real_size} bytes")
    os.ftruncate(fd, entry.real_size)
    regions = iter(entry.sparse or ())
    offset = left = 0
    for block in content:
        rest = block
        while rest:
            while left == 0:
                offset, left = next(regions, (0, -1))
                if left < 0 or offset + left > entry.real_size:
                    raise refused(entry, "has data outside its sparse map")
            written = os.pwrite(fd, rest[:left], offset)
            rest, offset, left = rest[written:], offset + written, left - written


def _drop_acl(fd: int, key: bytes) -> None:
    """Remove an ACL that the file inherited from its directory."""
    try:
        os.removexattr(fd, key)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
