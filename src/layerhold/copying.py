"""Copying files into a layer, out of one, or from one to another.

A place is a path in a layer, which is mounted meanwhile, or on the host. What a directory holds goes into the directory
that the target names, which is made if need be; what is there already is replaced name by name, and directories are
merged. Anything else is copied to the very name of the target, and the directories above it are made if need be.
(`containers-storage` 1.64, as it was seen to do it.)

A layer that its driver cannot mount can be copied out of all the same.

A layer is a root that no path leads out of: links on the way, absolute ones and "..", stay inside (tree/root.py). Go's
program follows them on the host.

Owners are those in the container: they are mapped out of the one layer's maps and into the other's. Files of
directories keep their hard links, capabilities and `user.` attributes; those that are copied by themselves lose their
attributes, as in Go. Times are cut to seconds. Nothing is locked but for mounting and unmounting.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from layerhold.archive.changes import ADD, Change, walk
from layerhold.archive.entry import Entry, clean
from layerhold.archive.extract import NO_DELETIONS, Extractor
from layerhold.archive.tar import TarReader
from layerhold.archive.united import United
from layerhold.blocks import ExitStack, contextmanager
from layerhold.errors import StorageError
from layerhold.progress import metering
from layerhold.tree.root import Root
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from layerhold.archive.united import Tree
    from layerhold.ids.mappings import IdMappings
    from layerhold.layers import Layer
    from layerhold.progress import Callback, Meter

    Owner = tuple[int, int] | None

_BLOCK = 1 << 20
_KINDS = {stat.S_IFREG: b"0", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}
_MODE_ABOVE_FILES, _MODE_OF_DIRECTORIES = 0o700, 0o755


class Place(Value):
    """A path in `layer`, or on the host."""

    path: str
    layer: Layer | None = None


class Opened(Value):
    """A place that can be reached: `path` below `root`. For errors: where on the host `root` is, and the place.

    `root` is United for a layer that cannot be mounted, of which files can be copied all the same.
    """

    root: Tree
    path: bytes
    top: str
    shown: str
    mappings: IdMappings | None

    @property
    def into(self) -> Root:
        """The root, to be written to: a target is mounted."""
        assert isinstance(self.root, Root)
        return self.root


def copy(sources: Sequence[Place], target: Place, *, owner: Owner = None, progress: Callback | None = None) -> None:
    """Copy each of `sources` to `target`; `owner` is who is to have all that is new, as the container sees it.

    `progress` is told how much is copied. What is there of a copy that fails, or is ended, stays. Raises LayerUnknown,
    DriverError, StorageError, NotPermitted, OSError.
    """
    with metering(progress, "copying") as meter, opened(target, to_write=True) as there:
        for source in sources:
            with opened(source) as one:
                copy_one(one, there, owner, meter)


@contextmanager
def opened(place: Place, *, to_write: bool = False) -> Iterator[Opened]:
    """Make a place reachable: the layer is mounted until the block ends, or only read if it cannot be."""
    with ExitStack() as stack:
        top, shown, mappings = "/", place.path, None
        path = clean(os.fsencode(os.path.abspath(place.path)))
        tree: Tree | None = None
        if place.layer is not None:
            tree = None if to_write else stack.enter_context(place.layer.unmounted())
            top = str(stack.enter_context(place.layer.mount())) if tree is None else ""
            path, mappings = clean(os.fsencode(place.path)), place.layer.record.mappings
            shown = os.path.join(top, os.fsdecode(path)) if path else top
        if isinstance(tree, United):
            path, shown = tree.resolved(path), "/" + os.fsdecode(path)
        root = stack.enter_context(Root(top)) if tree is None else tree
        yield Opened(root=root, path=path, top=top, shown=shown, mappings=mappings)


def copy_one(source: Opened, target: Opened, owner: Owner = None, meter: Meter | None = None) -> None:
    """Copy one thing. Raises as `copy` does."""
    if isinstance(source.root, United):
        _copy_unmounted(source.root, source, target, owner=owner, meter=meter)
        return
    try:
        fd = source.root.find_directory(source.path)
    except NotADirectoryError:
        _copy_file(source, target, owner, meter)
        return
    except FileNotFoundError:
        raise _failed("stat", errno.ENOENT, source.shown) from None
    try:
        _copy_directory(fd, source, target, owner, meter)
    finally:
        os.close(fd)


def _copy_unmounted(tree: United, source: Opened, target: Opened, *, owner: Owner, meter: Meter | None) -> None:
    try:
        path = tree.follow(source.path)
        is_directory = stat.S_ISDIR(tree.lstat(path).st_mode)
    except FileNotFoundError:
        raise _failed("stat", errno.ENOENT, source.shown) from None
    if is_directory:
        with _directory(target, owner) as into:
            entries = _link(source) if _is_link(source) else _entries_below(tree, path, source.mappings)
            _unpack(into, entries, target, owner, meter)
    else:
        _copy_file(source, target, owner, meter)


# -- directories


def _copy_directory(fd: int, source: Opened, target: Opened, owner: Owner, meter: Meter | None) -> None:
    with _directory(target, owner) as into:
        if not os.path.sameopenfile(fd, into):  # or each file would be removed before it is read
            entries = _link(source) if _is_link(source) else _entries(fd, source.mappings)
            _unpack(into, entries, target, owner, meter)


@contextmanager
def _directory(target: Opened, owner: Owner) -> Iterator[int]:
    """Give the directory of the target, made if need be."""
    _make_directories(target, target.path + b"/.", _MODE_OF_DIRECTORIES, owner)
    into = target.into.find_directory(target.path)
    try:
        yield into
    finally:
        os.close(into)


def _entries_below(
    tree: United, directory: bytes, mappings: IdMappings | None
) -> Iterator[tuple[Entry, Iterable[memoryview]]]:
    """Give all that is in a directory of a tree, as if it were the top."""
    from layerhold.archive import export

    listed = [Change(b"/" + path, ADD) for path, _, _ in walk(tree, directory)]
    reader = TarReader(export.tar(tree, changes=listed, deletions=NO_DELETIONS, lowers=None, mappings=mappings))
    above = directory + b"/" if directory else b""
    while (entry := reader.next()) is not None:
        entry.name = entry.path = entry.path.removeprefix(above)
        if entry.kind == b"1":
            entry.linkname = entry.linkname.removeprefix(above)
        yield entry, reader.content()


def _entries(fd: int, mappings: IdMappings | None) -> Iterator[tuple[Entry, Iterable[memoryview]]]:
    """Give all that is in a directory. It is listed first, so that it may also hold the target."""
    from layerhold.archive import export

    with Root(_by_number(fd)) as root:
        listed = [Change(b"/" + path, ADD) for path, _, _ in walk(root)]
    reader = TarReader(
        export.tar(_by_number(fd), changes=listed, deletions=NO_DELETIONS, lowers=None, mappings=mappings)
    )
    while (entry := reader.next()) is not None:
        yield entry, reader.content()


def _link(source: Opened) -> Iterator[tuple[Entry, Iterable[memoryview]]]:
    """Give a link to a directory, which Go's program takes for what is in one."""
    info = source.root.lstat(source.path)
    entry = _entry(source, source.path, b"2", info)
    entry.linkname = source.root.readlink(source.path)
    yield entry, ()


def _is_link(source: Opened) -> bool:
    return bool(source.path) and stat.S_ISLNK(source.root.lstat(source.path).st_mode)


# -- everything else


def _copy_file(source: Opened, target: Opened, owner: Owner, meter: Meter | None) -> None:
    path = source.root.follow(source.path)
    info = source.root.lstat(path)
    kind = _KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        raise _failed("open", errno.ENXIO, source.shown)
    _make_directories(target, target.path, _MODE_ABOVE_FILES, None)
    _refuse_directory(target)
    directory, _, name = target.path.rpartition(b"/")
    entry = _entry(source, path, kind, info)
    entry.path = entry.name = name
    with ExitStack() as stack:
        content: Iterable[memoryview] = ()
        if kind == b"0":  # opened before the target is replaced: it may be the same file
            file = source.root.open_file(path)
            stack.callback(os.close, file)
            content = _content(file)
        into = target.into.find_directory(directory)
        stack.callback(os.close, into)
        _unpack(into, [(entry, content)], target, owner, meter)


def _entry(source: Opened, path: bytes, kind: bytes, info: os.stat_result) -> Entry:
    uid, gid = info.st_uid, info.st_gid
    if source.mappings is not None:
        uid, gid = source.mappings.to_container(uid, gid)
    name = path.rpartition(b"/")[2]
    seconds = info.st_mtime_ns // 10**9
    entry = Entry(name, name, kind, (stat.S_IMODE(info.st_mode), uid, gid), info.st_size, seconds * 10**9)
    entry.major, entry.minor = os.major(info.st_rdev), os.minor(info.st_rdev)
    return entry


def _content(fd: int) -> Iterator[memoryview]:
    while block := os.read(fd, _BLOCK):
        yield memoryview(block)


def _refuse_directory(target: Opened) -> None:
    """Raise, in the words of Go's program, if the target is a directory (a link to one is replaced)."""
    try:
        is_directory = not target.path or stat.S_ISDIR(target.root.lstat(target.path).st_mode)
    except FileNotFoundError:
        return
    if is_directory:
        name = os.path.basename(target.shown)
        reason = f'cannot overwrite directory "/{name}" with non-directory "/"'
        raise StorageError(f"unpacking failed (error: exit status 1; output: {reason})")


# -- the target


def _make_directories(target: Opened, path: bytes, mode: int, owner: Owner) -> None:
    """Make the directories on the way to `path` that are missing, for `owner` or the container's root."""
    if target.mappings is not None:
        owner = target.mappings.to_host(*(owner or (0, 0)))
    try:
        target.into.make_parents(path, mode, owner)
    except (FileExistsError, NotADirectoryError) as error:
        raise _failed("mkdir", error.errno, _in_the_way(target, path)) from None


def _in_the_way(target: Opened, path: bytes) -> str:
    """Find the first thing on the way to `path` that is no directory, and say where it is on the host."""
    parts = path.split(b"/")[:-1]
    for count in range(1, len(parts) + 1):
        above = b"/".join(parts[:count])
        try:
            os.close(target.into.find_directory(above))
        except OSError:
            return os.path.join(target.top, os.fsdecode(above))
    return target.shown


def _unpack(
    into: int,
    entries: Iterable[tuple[Entry, Iterable[memoryview]]],
    target: Opened,
    owner: Owner,
    meter: Meter | None,
) -> None:
    """Unpack entries into the directory `into`, which has changed now."""
    with (
        Root(_by_number(into), filling=True) as root,
        Extractor(root, deletions=NO_DELETIONS, mappings=target.mappings) as extractor,
    ):
        for entry, content in entries:
            if owner is not None:
                entry.uid, entry.gid = owner
            if meter is None:
                extractor.add(entry, iter(content))
            else:
                extractor.add(entry, _metered(content, meter))
                meter.add(entries=1)
    os.utime(_by_number(into), ns=(now := time.time_ns(), now))


def _metered(content: Iterable[memoryview], meter: Meter) -> Iterator[memoryview]:
    for block in content:
        meter.add(bytes=len(block))
        yield block


def _failed(call: str, number: int | None, path: str) -> OSError:
    number = number or errno.EIO
    return OSError(number, f"{call}: {os.strerror(number)}", path)


def _by_number(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
