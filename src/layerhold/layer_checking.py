"""The part of a check that reads layers: their tars, their mounts, and what is in those.

    the layer's tar, put together again: digest and size        layer_digests
    can the layer be mounted                                    mountable
    the tree that its tar and those below it describe (archive/expected.py), against the mounted one    layer_contents

Each layer is read under a shared lock of its own: others may work on the store meanwhile, and what they change is
passed over. Layers are visited from the bottom up, each chain as deep as it goes, so that the expected tree is built
only once. It is known only where every layer of the chain has a tar that could be read, and is the store's own.

A mistake of this machine (too many open files, no memory) is no damage: it ends the check.
"""

from __future__ import annotations

import errno
import hashlib
import os

from layerhold.archive.assemble import assemble
from layerhold.archive.compress import GZIP, detect
from layerhold.archive.entry import clean
from layerhold.archive.expected import Expected
from layerhold.archive.tar import TarReader
from layerhold.archive.united import opened
from layerhold.archive.whiteouts import OVERLAY_MARKS
from layerhold.blocks import ExitStack
from layerhold.comparing import Comparison, tree_of
from layerhold.damage import CONTENT, MISSING, MODIFIED, MOUNT, Problem, named
from layerhold.digests import Digest
from layerhold.errors import BadArchive, DamagedLayer, InvalidDigest, StorageError
from layerhold.tree.root import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from layerhold.damage import Scope
    from layerhold.progress import Meter
    from layerhold.records.model import LayerRecord
    from layerhold.store import Store
    from layerhold.tables import Views

_GONE = "no such file or directory"
_DAMAGE = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EXDEV, errno.EIO, errno.EUCLEAN)
)


class LayerCheck:
    """One check of the layers that a store had when it began."""

    def __init__(self, store: Store, scope: Scope, layers: dict[str, LayerRecord], meter: Meter | None) -> None:
        self._meter = meter
        self._store = store
        self._driver = store.driver
        self._overlay = store.driver.name == "overlay"
        aufs = store.driver.name == "aufs"
        self._scope = scope
        self._layers = layers
        self._tree = Expected(whole=not (self._overlay or aufs), aufs=aufs)
        self._known: set[str] = set()  # the layers on the way down from here that the expected tree has

    def run(self) -> Iterator[tuple[str, list[Problem]]]:
        """Check the layers, and give the problems of each that has some."""
        children: dict[str, list[str]] = {}
        for id, layer in self._layers.items():
            children.setdefault(layer.parent if layer.parent in self._layers else "", []).append(id)
        left = [(id, True) for id in children.get("", ())]
        unvisited = set(self._layers)
        while left:
            id, entering = left.pop()
            if not entering:
                self._tree.undo()
                self._known.discard(id)
                continue
            unvisited.discard(id)
            left.append((id, False))
            left.extend((child, True) for child in children.get(id, ()))
            self._tree.begin()
            problems = [
                Problem(sentence=f"{named('layer', self._layers[id])}: {text}", kind=kind)
                for text, kind in self._visit(self._layers[id])
            ]
            if problems:
                yield id, problems
        for id in unvisited:
            yield id, [Problem(sentence=f"layer {id}: it is a parent of its own parents", kind=MISSING)]

    def _visit(self, layer: LayerRecord) -> Iterator[tuple[str, str]]:
        with ExitStack() as stack:
            views = stack.enter_context(self._store._tables.reading("layers"))
            now = views.layers.get(layer.id)
            if now is None or _essence(now) != _essence(layer):
                return
            if self._scope.layer_digests and layer.diff_digest:
                for text in self._read(stack, views, layer):
                    yield text, CONTENT
            if self._scope.mountable and not layer.read_only:
                yield from self._mount(layer)

    # --- digest and size

    def _read(self, stack: ExitStack, views: Views, layer: LayerRecord) -> Iterator[str]:
        """Read the layer's tar; its entries go into the expected tree."""
        try:
            digest = Digest.parse(layer.diff_digest)
        except InvalidDigest as error:
            yield error.sentence
            return
        if missing := self._overlay and self._first_missing(layer):
            yield f"creating file-getter: readlink {missing}: {_GONE}"
            return
        split = self._store._files.split(layer.id, self._store.layers.home(layer))
        if unreadable := _unreadable(split):
            yield unreadable
            return
        stream = _Stream(self._tar(stack, views, layer, split), digest.algorithm, self._meter)
        yield from self._read_stream(stream, layer, digest)

    def _read_stream(self, stream: _Stream, layer: LayerRecord, digest: Digest) -> Iterator[str]:
        on_known = not layer.parent or layer.parent in self._known
        wanted = self._scope.layer_contents and on_known and not layer.read_only
        reader = TarReader(stream)
        ended = failed = False
        try:
            while (entry := reader.next()) is not None:
                if self._meter is not None:
                    self._meter.add(entries=1)
                if wanted:
                    self._tree.add(entry)
            ended = True
            reader.drain()
        except (StorageError, OSError) as error:
            failed = True
            text = _worded(error)
            if stream.failed:
                yield f"consume any trailer after the EOF marker: {text}"
            if not ended:
                yield text
                return
        if stream.digest() != digest:
            yield "layer content incorrect digest"
        if stream.size != layer.diff_size:
            yield f"read {stream.size} bytes instead of {layer.diff_size} bytes: layer content incorrect size"
        if wanted and not failed:
            self._known.add(layer.id)

    def _tar(self, stack: ExitStack, views: Views, layer: LayerRecord, split: str) -> Iterator[bytes]:
        """Give the layer's tar, put together from its tar-split file, or made anew if it has none."""
        if not os.path.exists(split):
            return stack.enter_context(Comparison(self._driver, views.layers, layer, None)).tar()
        if not self._driver.exists(layer.id):
            return assemble(split, _opener(self._driver.path(layer.id), None))
        own = stack.enter_context(self._driver.own_files(layer.id))
        where = self._diff(layer.id) if self._overlay else own.path
        return assemble(split, _opener(where, stack.enter_context(Root(own.path))))

    # --- mounting, and the tree

    def _mount(self, layer: LayerRecord) -> Iterator[tuple[str, str]]:
        """See that the layer can be mounted, and if so compare its tree with the expected one."""
        if not self._driver.exists(layer.id):
            yield f"{'faccessat' if self._overlay else 'stat'} {self._driver.path(layer.id)}: {_GONE}", CONTENT
            return
        if missing := self._overlay and self._first_missing(layer):
            yield f'can\'t stat (or find?) lower layer "{missing}": stat {missing}: {_GONE}', CONTENT
            return
        with ExitStack() as stack:
            try:
                contents = stack.enter_context(self._driver.contents(layer.id, against=None))
                root = stack.enter_context(opened(tree_of(contents)))
            except (StorageError, OSError) as error:
                yield str(error), MOUNT
                return
            if layer.id in self._known:
                for text in self._tree.differences(
                    root,
                    marks=contents.deletions == OVERLAY_MARKS,
                    mappings=layer.mappings,
                    owners=not self._driver.squash and contents.mask is None,
                    meter=self._meter,
                ):
                    yield f"{text}, layer content modified", MODIFIED

    def _first_missing(self, layer: LayerRecord) -> str:
        """Give the directory of the first layer of a chain, from the top down, that the driver does not have; or ""."""
        id, seen = layer.id, {""}
        while id not in seen:
            seen.add(id)
            diff = self._diff(id)
            if not os.path.isdir(diff):
                return diff
            id = self._layers[id].parent if id in self._layers else ""
        return ""

    def _diff(self, id: str) -> str:
        return os.path.join(self._driver.path(id), "diff")


class _Stream:
    """A tar stream that counts and hashes what passes, and notes if it was itself that failed."""

    def __init__(self, chunks: Iterator[bytes], algorithm: str, meter: Meter | None) -> None:
        self._meter = meter
        self._chunks = chunks
        self._hash = hashlib.new(algorithm)
        self.size = 0
        self.failed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self.size += len(chunk)
                self._hash.update(chunk)
                if self._meter is not None:
                    self._meter.add(bytes=len(chunk))
                yield chunk
        except (StorageError, OSError):
            self.failed = True
            raise

    def digest(self) -> str:
        """Give the digest of what has passed."""
        return f"{self._hash.name}:{self._hash.hexdigest()}"


def _opener(directory: str, root: Root | None) -> Callable[[bytes], int]:
    """Give what opens a layer's files by their names, and says of those that it cannot open what Go says."""

    def open_file(name: bytes) -> int:
        path = os.path.join(directory, os.fsdecode(clean(name)))
        if root is None:
            raise DamagedLayer(f"open {path}: {_GONE}")
        try:
            return root.open_file(name)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise DamagedLayer(_not_a_file(path)) from error
            if error.errno in _DAMAGE:
                raise DamagedLayer(f"open {path}: {_reason(error)}") from error
            raise

    return open_file


def _not_a_file(path: str) -> str:
    if os.path.islink(path):
        return f"open {path}: too many levels of symbolic links"
    return f"read {path}: is a directory" if os.path.isdir(path) else f"open {path}: not a regular file"


def _unreadable(split: str) -> str:
    """Say why the beginning of a tar-split file is none, or "" (also if there is no file)."""
    try:
        with open(split, "rb") as file:
            start = file.read(10)
    except FileNotFoundError:
        return ""
    if len(start) < 10:
        return "unexpected EOF" if start else "EOF"
    return "" if detect(start) == GZIP else "gzip: invalid header"


def _worded(error: StorageError | OSError) -> str:
    """Say what is wrong with a stream. Raises the error if it is none of the stream's."""
    if isinstance(error, DamagedLayer):
        cut = isinstance(error.__cause__, BadArchive) and "unexpected end" in str(error.__cause__)
        return "unexpected EOF" if cut else error.context
    if isinstance(error, StorageError):
        return str(error)
    if error.errno not in _DAMAGE:
        raise error
    return _reason(error)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _essence(layer: LayerRecord) -> tuple[str, str, str]:
    return layer.created, layer.parent, layer.diff_digest
