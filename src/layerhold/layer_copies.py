"""One layer of a store, made again in another one whose driver may be another, and held against the old one.

    filled      from the tar that came in, put together again, if there is one; else from one written from the files
    mended      what the archive does not say, and what was changed since: directories that no entry made have their
                owner, mode and times from the old layer
    checked     the tar, put together again from the new files, has the digest that is recorded (or, if none is, that of
                the tar it was filled from); and the whole tree is the same: names, kinds, owners, modes, times to the
                second, links, devices, capabilities and `user.` attributes

The tar-split file is the old one's, byte for byte. Sockets are left out, as in every diff, and names that are aufs's
own.
"""

from __future__ import annotations

import hashlib
import os
import stat

from layerhold.archive import changes, export
from layerhold.archive.apply import apply
from layerhold.archive.assemble import assemble
from layerhold.archive.changes import DELETE, MODIFY, Change
from layerhold.archive.united import opened
from layerhold.archive.whiteouts import is_hidden, is_of_aufs
from layerhold.comparing import Comparison, at_mount, tree_of
from layerhold.drivers.base import ERASE, OVERLAY_MARKS, LayerSpec
from layerhold.errors import DamagedLayer, DigestMismatch, StorageError
from layerhold.records.table import VOLATILE
from layerhold.streams import as_file
from layerhold.tree.root import Root
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from layerhold.archive.apply import Applied
    from layerhold.archive.united import Tree
    from layerhold.drivers.base import Build, Contents, Driver
    from layerhold.ids.mappings import IdMappings
    from layerhold.layer_batches import LayerBatch
    from layerhold.layer_files import LayerFiles
    from layerhold.progress import Callback, Meter, Progress
    from layerhold.records.model import ContainerRecord, LayerRecord, Record
    from layerhold.records.view import View
    from layerhold.tree.trash import TempDir

_BLOCK = 1 << 20


class Source(Value):
    """The layers of a store: its driver, their records, the directory that has their tar-split files.

    `containers` are those that have a layer of their own, by its ID.
    """

    driver: Driver
    layers: View[LayerRecord]
    directory: str
    containers: Mapping[str, ContainerRecord]


class Target(Value):
    """Where layers are made: a store that is held for writing, as part of a batch."""

    files: LayerFiles
    batch: LayerBatch
    layers: View[LayerRecord]


class LayerCopies:
    """Makes layers of `source` in `target`; tar-split files are made in `aside` first."""

    def __init__(self, source: Source, target: Target, aside: TempDir, meter: Meter | None) -> None:
        self._source = source
        self._target = target
        self._driver: Driver = target.files.driver
        self._aside = aside
        self._meter = meter
        self._stop: BaseException | None = None
        self._bytes = 0  # of the layers that are done

    def copy(self, record: LayerRecord) -> None:
        """Make one layer; its parent has been made. Raises StorageError, OSError, which name the layer."""
        try:
            self._copy(record)
        except (OSError, StorageError) as error:
            if self._stop is not None:
                raise self._stop from None
            if isinstance(error, OSError):
                raise OSError(error.errno, f"layer {record.id}: {error.strerror}", error.filename) from error
            if record.id in str(error):
                raise
            if isinstance(error, DamagedLayer | DigestMismatch):
                raise type(error)(f"layer {record.id}: {error.context}") from error
            raise StorageError(f"layer {record.id}: {error}", hint=error.hint) from error

    def _copy(self, record: LayerRecord) -> None:
        parent = self._source.layers.get(record.parent) if record.parent else None
        below = parent.mappings if parent else None
        container = self._source.containers.get(record.id)
        by_mount = container is not None and parent is not None and below is None and self._driver.maps_at_mount()
        if container is not None and container.mappings and record.mappings is None and not by_mount:
            record = record.replace(mappings=container.mappings)  # until now a mount has shown it so
        wanted = record.replace(origin=self._target.files.volatile if is_volatile(record) else "", read_only=False)
        spec = LayerSpec(
            writable=container is not None,
            label=record.mount_label,
            mappings=None if by_mount else record.mappings,
            parent_mappings=below,
        )
        with self._driver.building(record.id, record.parent or None, spec, self._wait) as build:
            split, known, digest = self._fill(record, build)
            self._mend(record, build)
            with self._target.batch.adding(wanted):
                build.publish()
                if known:
                    os.rename(split, self._target.files.split(record.id))
                    split = self._target.files.split(record.id)
        self._check_tar(record, split, digest)
        self._check_tree(record, wanted)
        if not known:
            os.unlink(split)

    # --- filling

    def _fill(self, record: LayerRecord, build: Build) -> tuple[str, bool, str]:
        """Fill the layer. Give how its tar is put together again, whether that is recorded, and the tar's digest."""
        recorded = os.path.join(self._source.directory, f"{record.id}.tar-split.gz")
        known = os.path.exists(recorded)
        split = self._aside.place("split")
        with Comparison(self._source.driver, self._source.layers, record, None) as comparison:
            tar = comparison.original(recorded) if known else comparison.tar()
            expect = record.diff_digest if known else ""
            tell = self._unpacked if record.diff_size > 0 else self._wait
            applied = self._apply(record, build.contents, tar, tell, split="" if known else split, expect=expect)
        self._bytes += max(0, record.diff_size)
        if known:
            _copy_file(recorded, split)
        return split, known, str(applied.diff_digest)

    def _apply(
        self,
        record: LayerRecord,
        contents: Contents,
        tar: Iterator[bytes],
        tell: Callback,
        *,
        split: str = "",
        expect: str = "",
    ) -> Applied:
        with as_file(tar) as stream:
            return apply(
                stream,
                contents.path,
                deletions=contents.deletions,
                xattr_prefix=contents.xattr_prefix,
                mappings=None if contents.owners_inside else record.mappings,
                squash=self._driver.squash,
                mask=contents.mask,
                split_path=split or None,
                expect=expect or None,
                progress=tell,
            )

    def _unpacked(self, now: Progress) -> None:
        self._tell(self._bytes + now.bytes)

    def _wait(self, _now: Progress) -> None:
        """Let the conversion be ended while a driver copies files."""
        self._tell(self._bytes)

    def _tell(self, count: int) -> None:
        """Say how far it is. What ends it is kept: it is nothing that is wrong with the layer."""
        if self._meter is not None:
            try:
                self._meter.at(bytes=count, entries=0)
            except BaseException as stop:
                self._stop = stop
                raise

    # --- mending

    def _mend(self, record: LayerRecord, build: Build) -> None:
        """Give the new layer what the old one has otherwise."""
        maps = at_mount(self._source.layers, record)
        driver = self._source.driver
        with Comparison(driver, self._source.layers, record, None) as comparison:
            listed = comparison.changes()
        with driver.contents(record.id, against=record.parent or None, mappings=maps) as contents:
            with opened(tree_of(contents)) as old, Root(build.contents.path) as new:
                wrong = list(_wrong(old, new, listed))
                top = old.lstat(b"")
            if wrong:
                tar = export.tar(
                    tree_of(contents), changes=wrong, deletions=ERASE, lowers=None, mappings=record.mappings
                )
                self._apply(record, build.contents, tar, self._wait)
            inside = record.mappings if build.contents.owners_inside else None
            _dress(build.contents.path, top, inside)

    # --- checking

    def _check_tar(self, record: LayerRecord, split: str, digest: str) -> None:
        """See that the new layer gives the tar back. Raises DamagedLayer."""
        found = hashlib.sha256()
        with self._driver.own_files(record.id) as own, Root(own.path) as root:
            for chunk in assemble(split, root.open_file):
                found.update(chunk)
        if (got := f"sha256:{found.hexdigest()}") != digest:
            raise DamagedLayer(f"layer {record.id}: the copy gives {got} instead of {digest}")

    def _check_tree(self, record: LayerRecord, wanted: LayerRecord) -> None:
        """See that both layers show the same tree. Raises DamagedLayer, which names the first path that differs."""
        source = self._source
        maps, new_maps = at_mount(source.layers, record), at_mount(self._target.layers, wanted)
        with (
            source.driver.contents(record.id, against=None, mappings=maps) as before,
            self._driver.contents(wanted.id, against=None, mappings=new_maps) as after,
            opened(tree_of(before)) as old,
            opened(tree_of(after)) as new,
        ):
            for path, kind, _ in changes.compared(old, new, None, None):
                tree, contents = (new, after) if kind == changes.ADD else (old, before)
                if not _is_left_out(tree.lstat(path), path, contents):
                    raise DamagedLayer(f'layer {record.id}: "/{os.fsdecode(path)}" is not in the copy as it is in it')


def _wrong(old: Tree, new: Root, listed: Sequence[Change]) -> Iterator[Change]:
    """Give the changes that the new layer lacks, and the directories on the way to each change that look otherwise."""
    seen = {b""}
    for change in listed:
        path = change.path[1:]
        parts = path.split(b"/")
        for count in range(1, len(parts) + 1):
            here = b"/".join(parts[:count])
            if here in seen:
                continue
            seen.add(here)
            before, after = _seen_at(old, here), _seen_at(new, here)
            if before is None and after is not None:
                yield Change(b"/" + here, DELETE)
            elif before is not None and (after is None or _look(before) != _look(after)):
                yield Change(b"/" + here, MODIFY)


def _seen_at(tree: Tree, path: bytes) -> os.stat_result | None:
    """Give what is at `path`; None for nothing, or the mark of an overlay layer, which no layer has as a device."""
    try:
        info = tree.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if is_hidden(info) else info


def _look(info: os.stat_result) -> tuple[int, ...]:
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    return info.st_mode, info.st_uid, info.st_gid, size, info.st_rdev, info.st_mtime_ns // 10**9


def _dress(path: str, info: os.stat_result, inside: IdMappings | None) -> None:
    """Give the top of a layer the owner (as in the container, if there are maps), mode and times of the old one's."""
    if os.geteuid() == 0:
        owner = info.st_uid, info.st_gid
        os.chown(path, *(owner if inside is None else inside.to_container(*owner)))
    os.chmod(path, stat.S_IMODE(info.st_mode))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def _is_left_out(info: os.stat_result, path: bytes, contents: Contents) -> bool:
    """Tell whether a name that only one of the trees has is none that both need to have."""
    is_mark = contents.deletions == OVERLAY_MARKS and is_hidden(info)
    return is_mark or stat.S_ISSOCK(info.st_mode) or is_of_aufs(path)


def is_volatile(record: Record) -> bool:
    """Tell whether the record's file is one that need not outlive the machine's running."""
    return os.path.basename(record.origin).startswith(VOLATILE)


def _copy_file(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "xb", opener=_private) as new:
        while block := old.read(_BLOCK):
            new.write(block)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
