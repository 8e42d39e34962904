"""Everything that Layerhold raises on its own account.

One tree under `StorageError`. Where the Go program has a sentence for it ("layer not known"), we use that sentence, so
that programs which match texts go on working. Host I/O failures stay `OSError`. Each error carries what it is about as
attributes, and where there is a way out, a `hint`.
"""

from __future__ import annotations


class StorageError(Exception):
    """The root of the tree. `sentence` is the Go program's text for the cause; `context` comes before it."""

    sentence = ""

    def __init__(self, context: str = "", *, hint: str = "") -> None:
        self.context = context
        self.hint = hint
        super().__init__(context)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.context, self.sentence) if part)


class NotFound(StorageError, LookupError):
    """What was asked for is not in the store. `ref` is what was asked for."""

    sentence = "identifier is not a layer, image, or container"

    def __init__(self, ref: str = "", context: str = "", *, hint: str = "") -> None:
        self.ref = ref
        super().__init__(context, hint=hint)


class StoreUnknown(NotFound):  # noqa: D101
    sentence = "no store there"


class LayerUnknown(NotFound):  # noqa: D101
    sentence = "layer not known"


class LayerWithoutFiles(LayerUnknown):
    """The driver has no files of layer `ref`. The text says where they would be, as the system would say it."""

    sentence = "no such file or directory"


class ImageUnknown(NotFound):  # noqa: D101
    sentence = "image not known"


class ContainerUnknown(NotFound):  # noqa: D101
    sentence = "container not known"


class NotALayer(NotFound):  # noqa: D101
    sentence = "identifier is not a layer"


class NotAnImage(NotFound):  # noqa: D101
    sentence = "identifier is not an image"


class NotAContainer(NotFound):  # noqa: D101
    sentence = "identifier is not a container"


class BigDataUnknown(NotFound):
    """There is no big data item `ref`."""

    sentence = "file does not exist"


class BigDataFileUnknown(BigDataUnknown):
    """There is no big data item `ref` of a container; the text names its file, as the system would."""

    sentence = "no such file or directory"


class SizeUnknown(NotFound):  # noqa: D101
    sentence = "size is not known"


class DigestUnknown(NotFound):  # noqa: D101
    sentence = "could not compute digest of item"


class AlreadyExists(StorageError):
    """Something of that ID or name is there already."""


class DuplicateID(AlreadyExists):  # noqa: D101
    sentence = "that ID is already in use"


class DuplicateName(AlreadyExists):  # noqa: D101
    sentence = "that name is already in use"


class AmbiguousName(StorageError):
    """A name that two kinds share was used where only one can be meant."""

    sentence = "that name is shared by items of several kinds"


class InUse(StorageError):
    """It cannot be removed, because `by` (IDs) still need it."""

    def __init__(self, context: str = "", *, by: tuple[str, ...] = (), hint: str = "") -> None:
        self.by = by
        super().__init__(context, hint=hint)


class LayerHasChildren(InUse):  # noqa: D101
    sentence = "layer has children"


class LayerUsedByImage(InUse):  # noqa: D101
    sentence = "layer is in use by an image"


class LayerUsedByContainer(InUse):  # noqa: D101
    sentence = "layer is in use by a container"


class ImageUsedByContainer(InUse):  # noqa: D101
    sentence = "image is in use by a container"


class LayerNotMounted(StorageError):  # noqa: D101
    sentence = "layer is not mounted"


class PartialImagesDisabled(StorageError):  # noqa: D101
    sentence = "partial images are disabled"


class ParentIsContainer(StorageError):  # noqa: D101
    sentence = "would-be parent layer is a container"


class ReadOnlyStore(StorageError):  # noqa: D101
    sentence = "called a write method on a read-only store"


class InvalidID(StorageError):
    """An ID that could name a file outside its place, or one of the driver's own."""

    sentence = "not a usable ID"


class InvalidBigDataName(StorageError):  # noqa: D101
    sentence = "not a valid name for a big data item"


class InvalidDigest(StorageError, ValueError):
    """`text` is not a digest."""

    sentence = "invalid checksum digest format"

    def __init__(self, text: str = "", context: str = "", *, hint: str = "") -> None:
        self.text = text
        super().__init__(context, hint=hint)


class InvalidDigestLength(InvalidDigest):  # noqa: D101
    sentence = "invalid checksum digest length"


class UnsupportedDigest(InvalidDigest):
    """`text` may be a digest, but nothing here can compute one of its algorithm."""

    sentence = "unsupported digest algorithm"


class DigestMismatch(StorageError):
    """The bytes do not have the digest that was promised."""

    sentence = "digest does not match"


class DamagedFile(StorageError):
    """A file of the store cannot be read as what it should be; it is left as it is. `path` and `place` say where."""

    sentence = "damaged file"

    def __init__(self, path: str, place: str, context: str = "", *, hint: str = "") -> None:
        self.path = path
        self.place = place
        super().__init__(context, hint=hint)

    def __str__(self) -> str:
        return f'loading "{self.path}": {self.place}'


class OnlyOwnIDs(UserWarning):
    """A user namespace has no IDs but its user's own: files of a layer can have no other owners in it."""


class StorePassedOver(UserWarning):
    """A listing is without what an additional store has, which cannot be read. The text names store and reason."""


class DamagedLayer(StorageError):
    """A layer's files do not give back what its tar-split file or digest says."""

    sentence = "layer is damaged"


class BadArchive(StorageError, ValueError):
    """A tar stream, or what it is compressed with, cannot be read. `offset` is in bytes of the stream, when known."""

    sentence = "archive cannot be read"

    def __init__(self, context: str = "", *, offset: int | None = None, hint: str = "") -> None:
        self.offset = offset
        super().__init__(context, hint=hint)


class RefusedEntry(BadArchive):
    """One entry of an archive cannot be brought in. `name` is its name."""

    sentence = "entry refused"

    def __init__(self, name: str, context: str, *, hint: str = "") -> None:
        self.name = name
        super().__init__(f'"{name}": {context}', hint=hint)

    def __str__(self) -> str:
        return self.context


class BadLabel(StorageError, ValueError):
    """A SELinux label, or an option for one, cannot be used. `label` is what was given."""

    sentence = "bad SELinux label"

    def __init__(self, label: str, context: str, *, hint: str = "") -> None:
        self.label = label
        super().__init__(context, hint=hint)

    def __str__(self) -> str:
        return self.context


class Cancelled(StorageError):
    """For callbacks (progress.py) to raise, to end what they were called from. The library never raises it itself."""

    sentence = "cancelled"


class LockOrder(StorageError):
    """Locks were asked for out of order, or the same one twice in a thread: a mistake in the calling program."""

    sentence = "locks out of order"


class BadConfig(StorageError, ValueError):
    """A setting cannot be used. The text names file, line and key where they are known."""

    sentence = "configuration error"

    def __str__(self) -> str:
        return self.context or self.sentence


class IncompleteOptions(BadConfig):  # noqa: D101
    sentence = "missing necessary StoreOptions"


class InvalidMappings(StorageError, ValueError):
    """Maps of IDs that cannot be used. The context names the range."""

    sentence = "invalid mappings specified"


class MalformedMappings(InvalidMappings):
    """A text that should be a map of IDs is none."""

    def __str__(self) -> str:
        return self.context or self.sentence


class NoSubIds(StorageError):
    """A file of subordinate IDs cannot be read as one, or has nothing for a name. `path` is the file."""

    sentence = "no ranges of subordinate IDs"

    def __init__(self, path: str, context: str, *, hint: str = "") -> None:
        self.path = path
        super().__init__(context, hint=hint)

    def __str__(self) -> str:
        return self.context


class NoAvailableIDs(StorageError):
    """Too few IDs are unused for another user namespace."""

    sentence = "not enough unused IDs in user namespace"


class DriverError(StorageError):
    """The storage driver cannot do what was asked."""


class DriverReadOnly(DriverError, ReadOnlyStore):
    """The driver of this store can only read."""

    sentence = ""


class DriverNotSupported(DriverError):  # noqa: D101
    sentence = "driver not supported"


class DriverPrerequisites(DriverError):  # noqa: D101
    sentence = "prerequisites for driver not satisfied (wrong filesystem?)"


class DriverIncompatibleFS(DriverError):  # noqa: D101
    sentence = "backing file system is unsupported for this graph driver"


class NotPermitted(StorageError, PermissionError):
    """This user may not do it. The hint says what would help."""

    sentence = "not permitted"


def quoted(text: str) -> str:
    """Give a text as Go's `%q` puts it into a sentence: printable characters as they are, the rest escaped."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(sign: str) -> str:
    code = ord(sign)
    if sign in _SHORT:
        return _SHORT[sign]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if sign.isprintable():
        return sign
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_SHORT = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip
