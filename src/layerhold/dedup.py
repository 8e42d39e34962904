"""Equal files of images that share their blocks on disk, where the file system can (btrfs, xfs).

Looked at are the layers of the store's own that images stand on; not those of containers, which are written to, nor
what no image needs. A method only says which files are worth comparing: of each group the first stays as it is, and the
kernel lets the others share its blocks after comparing them byte by byte, so nothing that is read changes.
"""

from __future__ import annotations

import errno
import os
import stat
from hashlib import sha256

from layerhold.blocks import ExitStack
from layerhold.digests import crc64
from layerhold.progress import counted, metering
from layerhold.tree.walk import LONGEST_PATH, directories
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerhold.progress import Callback, Meter
    from layerhold.records.model import LayerRecord
    from layerhold.store import Store
    from layerhold.tables import Views

METHODS = ("crc", "size", "sha256")

_BLOCK = 1 << 20
_TRIED = 64  # files of one size and hash that another one is compared with
_CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)
# Of one file: too small, immutable, a program that runs, somewhere else, gone meanwhile.
_NOT_THIS = (
    errno.EINVAL,
    errno.EPERM,
    errno.EACCES,
    errno.ETXTBSY,
    errno.EXDEV,
    errno.EROFS,
    errno.ENOENT,
    errno.ELOOP,
)


class Deduplicated(Value):
    """What came of it: the `bytes` that are shared now (those that were before count again), and how many `files`."""

    bytes: int = 0
    files: int = 0


def dedup(store: Store, method: str, progress: Callback | None = None) -> Deduplicated:
    """Let equal files share their blocks. Raises ValueError for a method that there is not, OSError."""
    if method not in METHODS:
        raise ValueError(f"invalid hash method: {method}")
    with ExitStack() as stack:
        views = stack.enter_context(store._tables.reading("layers", "images"))
        there = [layer.id for layer in _layers_of_images(views) if store.driver.exists(layer.id)]
        roots = [stack.enter_context(store.driver.own_files(id)).path for id in there]
        return _Run(roots, method, progress).run()


def _layers_of_images(views: Views) -> Iterator[LayerRecord]:
    seen: set[str] = set()
    for image in views.images.own:
        for top in (image.layer, *image.mapped_layers):
            layer = views.layers.own.get(top)
            while layer is not None and layer.id not in seen:
                seen.add(layer.id)
                yield layer
                layer = views.layers.own.get(layer.parent)


class _Run:
    """One run over the trees `roots`: each file is looked at once for its size, and again if its size is not alone."""

    def __init__(self, roots: list[str], method: str, progress: Callback | None) -> None:
        self._roots = roots
        self._method = method
        self._progress = progress
        self._different: dict[tuple[int, bytes], list[str]] = {}  # files that might be equal, and are not
        self._bytes = self._files = 0

    def run(self) -> Deduplicated:
        """Do all that can be done."""
        counts: dict[int, int] = {}
        with metering(self._progress, "looking for files") as meter:
            for _path, size in counted(self._regular_files(), meter):
                counts[size] = counts.get(size, 0) + 1
        counts = {size: count for size, count in counts.items() if count > 1}
        total = sum(size * count for size, count in counts.items())
        with metering(self._progress, "sharing", total_bytes=total, total_entries=sum(counts.values())) as meter:
            try:
                for path, size in self._regular_files():
                    if size in counts:
                        self._offer(path, size, meter)
                        if meter is not None:
                            meter.add(bytes=size, entries=1)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
        return Deduplicated(bytes=self._bytes, files=self._files)

    def _regular_files(self) -> Iterator[tuple[str, int]]:
        """Give the files that are not empty, each inode once."""
        seen: set[tuple[int, int]] = set()
        for root in self._roots:
            for path, info in _walk(root):
                if info.st_size and (info.st_nlink == 1 or (info.st_dev, info.st_ino) not in seen):
                    if info.st_nlink > 1:
                        seen.add((info.st_dev, info.st_ino))
                    yield path, info.st_size

    def _offer(self, path: str, size: int, meter: Meter | None) -> None:
        """Let a file share what one has that is equal to it, or keep it for those to come."""
        try:
            fd = _opened(path)
        except OSError as error:
            if error.errno in _NOT_THIS:
                return
            raise
        try:
            different = self._different.setdefault((size, _hashed(fd, self._method, meter)), [])
            if not any(self._share(other, fd, size) for other in different) and len(different) < _TRIED:
                different.append(path)
        finally:
            os.close(fd)

    def _share(self, other: str, fd: int, size: int) -> bool:
        source = _opened(other)
        try:
            shared = _share_all(source, fd, size)
        finally:
            os.close(source)
        self._bytes += shared
        self._files += bool(shared)
        return bool(shared)


def _share_all(source: int, fd: int, size: int) -> int:
    """Let `fd` share the blocks of `source` as far as the kernel finds both equal; count the bytes."""
    from layerhold.linux.files import dedupe

    done = 0
    try:
        while done < size and (shared := dedupe(source, fd, done, size - done)):
            done += shared
    except OSError as error:
        if error.errno not in _NOT_THIS:
            raise
    return done


def _walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Give the regular files below `top`, but those that lie deeper than a path can say; links are not followed."""
    for directory in directories(top):
        above = f"{top}/{directory.path}"
        for name, info in directory.entries:
            path = above + name
            if stat.S_ISREG(info.st_mode) and len(os.fsencode(path)) <= LONGEST_PATH:
                yield path, info


def _opened(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


def _hashed(fd: int, method: str, meter: Meter | None) -> bytes:
    if method == "size":
        return b""
    if method == "crc":
        crc = 0
        for block in _blocks(fd, meter):
            crc = crc64(block, crc)
        return crc.to_bytes(8, "big")
    sum_ = sha256()
    for block in _blocks(fd, meter):
        sum_.update(block)
    return sum_.digest()


def _blocks(fd: int, meter: Meter | None) -> Iterator[bytes]:
    at = 0
    while block := os.read(fd, _BLOCK):
        yield block
        at += len(block)
        if meter is not None:
            meter.within(at)
