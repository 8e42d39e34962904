"""What layers, images and containers share: look-up, names, metadata, big data.

A `Collection` is one kind of item of a store; an `Item` is one of them: a snapshot of its record, with the verbs. It
keeps the record it was made from: `refresh` looks again, and every method that changes something looks again by itself,
under the lock, so an item that has gone meanwhile is an error and never a write to something else.
"""

from __future__ import annotations

import os

from layerhold.blocks import ExitStack
from layerhold.errors import (
    BigDataFileUnknown,
    BigDataUnknown,
    DigestUnknown,
    InvalidBigDataName,
    ReadOnlyStore,
    SizeUnknown,
)
from layerhold.records import data as big_data
from layerhold.records.codec import without_collecting
from layerhold.records.intents import Intent, noted
from layerhold.records.model import EMPTY, ContainerRecord, ImageRecord
from layerhold.records.view import Unread
from layerhold.tree.files import make_dirs
from layerhold.values import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any, BinaryIO, ClassVar, Self

    from layerhold.errors import NotFound
    from layerhold.records.editor import Editor
    from layerhold.records.model import Record
    from layerhold.records.view import View
    from layerhold.tables import AnyTables, Editors, Views

    R = TypeVar("R", bound=Record)
    T = TypeVar("T", bound="Item[Any]")
else:
    R = T = None

_Measured = ImageRecord | ContainerRecord  # records that have sizes and digests of their big data


class Collection(Generic[R, T]):
    """All items of one kind. `directory` is where their data files are, `<graphroot>/<driver>-<kind>`.

    Those of additional stores are among them, behind the store's own; they can be read, and are `read_only`. If such a
    store cannot be read, whoever lists them is warned (StorePassedOver); who asks for one that is not the store's own
    gets the error.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    unknown: ClassVar[type[NotFound]]
    item: Callable[[Any, R | Unread[R]], T]

    def __init__(self, tables: AnyTables, directory: str) -> None:
        self._tables = tables
        self.directory = directory

    def view(self, views: Views) -> View[R]:
        """Give this kind's table out of those that are held."""
        return getattr(views, self.kind)  # type: ignore[no-any-return]

    def editor(self, editors: Editors) -> Editor[R]:
        """Give this kind's table, writable, out of those that are held."""
        return getattr(editors, self.kind)  # type: ignore[no-any-return]

    def get(self, ref: str) -> T | None:
        """Give the item with the ID, unique ID prefix or name `ref`, or None."""
        with self._tables.reading(self.kind) as views:
            record = self._find(self.view(views), ref)
        return None if record is None else self.item(self, record)

    def own(self, ref: str) -> T | None:
        """Give the item like `get` if it is the store's own, which can be changed, else None."""
        found = self.get(ref)
        return None if found is None or found.read_only else found

    def __getitem__(self, ref: str) -> T:
        found = self.get(ref)
        if found is None:
            raise self.missing(ref)
        return found

    def __contains__(self, ref: object) -> bool:
        return isinstance(ref, str) and self.get(ref) is not None

    def __iter__(self) -> Iterator[T]:
        with self._tables.reading(self.kind) as views:
            view = self.view(views)
            with without_collecting():
                records: list[R | Unread[R]] = [*view.unread(), *view.of_others()]
                return iter([self.item(self, record) for record in records])

    def __len__(self) -> int:
        with self._tables.reading(self.kind) as views:
            view = self.view(views)
            return len(view.own) + len(view.of_others())

    def required(self, view: View[R], ref: str) -> R:
        """Find the record of `ref`, or raise what this kind raises for the unknown."""
        record = self._find(view, ref)
        if record is None:
            raise self.missing(ref)
        return record

    def missing(self, ref: str) -> NotFound:
        """Make the error that there is no `ref`."""
        return self.unknown(ref)

    def home(self, record: R) -> str:
        """Say where the data files of the items are that are in the same store as `record`."""
        return os.path.dirname(record.origin) if record.read_only else self.directory

    def _find(self, view: View[R], ref: str) -> R | None:
        return view.find(ref)


class Item(Generic[R]):
    """One layer, image or container."""

    def __init__(self, collection: Collection[R, Any], record: R | Unread[R]) -> None:
        self._collection = collection
        self._record = record

    @property
    def record(self) -> R:
        """All that the store's file says of it. Raises DamagedFile."""
        record = self._record
        if isinstance(record, Unread):
            record = self._record = record.read()
        return record

    @record.setter
    def record(self, record: R) -> None:
        self._record = record

    @property
    def id(self) -> str:
        """The ID, mostly 64 hex digits."""
        return self._record.id

    @property
    def names(self) -> tuple[str, ...]:
        """The names, each of which belongs to one item of the kind only."""
        return self._record.names

    @property
    def metadata(self) -> str:
        """The text that whoever made the item attached to it."""
        return self.record.metadata

    @property
    def flags(self) -> Mapping[str, object]:
        """The flags, those that Layerhold does not know included."""
        return self.record.flags

    @property
    def created(self) -> str:
        """When it was made: RFC 3339, up to nanoseconds, as the store's file has it."""
        return self.record.created

    @property
    def read_only(self) -> bool:
        """Whether it is another store's, which is only read."""
        return self.record.read_only

    @property
    def data(self) -> BigData[R]:
        """The big data: named blobs beside the record."""
        return BigData(self, self._collection)

    def refresh(self) -> Self:
        """Look at the store again. Raises NotFound if the item has gone."""
        with self._collection._tables.reading(self._collection.kind) as views:
            self.record = self._now(self._collection.view(views))
        return self

    def set_names(self, names: Sequence[str]) -> None:
        """Give it just these names; each is taken from the item of the same kind that has it."""
        self._change_names(lambda _now: names)

    def add_names(self, names: Sequence[str]) -> None:
        """Give it these names as well, before those that it has."""
        self._change_names(lambda now: (*names, *now))

    def remove_names(self, names: Sequence[str]) -> None:
        """Take these names away; one that it does not have is no error."""
        self._change_names(lambda now: [name for name in now if name not in names])

    def set_metadata(self, metadata: str) -> None:
        """Attach this text instead of what was attached before."""
        with self.changing() as (editor, record):
            self.record = record.replace(metadata=metadata)
            editor.put(self.record)

    def changing(self) -> _Changing[R]:
        """Hold the exclusive lock of the kind, and give its editor and the record as it is now.

        Raises ReadOnlyStore if the item is another store's.
        """
        return _Changing(self)

    def _now(self, view: View[R]) -> R:
        record = view.get(self.id)
        if record is None:
            raise self._collection.missing(self.id)
        return record

    def _own(self, view: View[R]) -> R:
        """Give the record as it is now, to be changed."""
        record = self._now(view)
        if record.read_only:
            noun = self._collection.noun
            raise ReadOnlyStore(f"{noun} {self.id} is in {os.path.dirname(record.origin)}")
        return record

    def _userdata(self, home: str) -> Path:
        """Make the directory for files of whoever uses the item, below `home`, if the item is still there."""
        from pathlib import Path

        self.refresh()
        path = os.path.join(home, self.id, "userdata")
        make_dirs(path)
        return Path(path)

    def _change_names(self, change: Callable[[tuple[str, ...]], Sequence[str]]) -> None:
        with self.changing() as (editor, record):
            self.record = self._renamed(record, distinct(change(record.names)))
            editor.put(self.record)

    def _renamed(self, record: R, names: tuple[str, ...]) -> R:
        return record.replace(names=names)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.record == other.record

    def __hash__(self) -> int:
        return hash((type(self), self.id))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id[:12]}{''.join(f' {name}' for name in self.names[:1])}>"


class _Changing(Generic[R]):
    """The block in which an item's record is changed."""

    def __init__(self, item: Item[R]) -> None:
        self._item = item
        self._tables = item._collection._tables.writing(item._collection.kind)

    def __enter__(self) -> tuple[Editor[R], R]:
        editor = self._item._collection.editor(self._tables.__enter__())
        try:
            return editor, self._item._own(editor)
        except BaseException as error:
            self._tables.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        self._tables.__exit__(*error)


class BigData(Generic[R]):
    """The big data of one item: reads like a mapping from key to bytes; `set` writes.

    Keys are non-empty texts. The files are `<directory>/<id>/<encoded key>` (records/data.py).
    """

    def __init__(self, item: Item[R], collection: Collection[R, Any]) -> None:
        self._item = item
        self._collection = collection

    @property
    def _directory(self) -> str:
        return os.path.join(self._collection.home(self._item.record), self._item.id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._item.record.big_data_names)

    def __len__(self) -> int:
        return len(self._item.record.big_data_names)

    def __contains__(self, key: object) -> bool:
        return key in self._item.record.big_data_names

    def __getitem__(self, key: str) -> bytes:
        """Give the bytes. Raises BigDataUnknown, InvalidBigDataName."""
        self._refuse_empty(key, "container big data value for")
        try:
            if key:
                return big_data.read(self._directory, key)
        except BigDataUnknown:
            pass
        raise self._unknown(key)

    def size(self, key: str) -> int:
        """Give the size in bytes. Raises SizeUnknown, InvalidBigDataName (an empty key of a container)."""
        self._refuse_empty(key, "size of container big data with")
        sizes = getattr(self._item.record, "big_data_sizes", {})
        if key not in sizes:
            raise SizeUnknown(key)
        return int(sizes[key])

    def digest(self, key: str) -> str:
        """Give the digest. Raises DigestUnknown, InvalidBigDataName (an empty key of a container)."""
        self._refuse_empty(key, "digest of container big data value with")
        digests = getattr(self._item.record, "big_data_digests", {})
        if key not in digests:
            raise DigestUnknown(key)
        return str(digests[key])

    def open(self, key: str) -> BinaryIO:
        """Open the file of `key` for reading; it is replaced, never rewritten. Raises BigDataUnknown, OSError."""
        try:
            return big_data.open_data(self._directory, key)
        except BigDataUnknown:
            raise self._unknown(key) from None

    def set(self, key: str, value: bytes, *, digest: str | Callable[[bytes], str] | None = None) -> None:
        """Store `value` under `key`: the file first, then its name, size and digest in the record.

        `digest` is what to record, or computes it: manifests of old kinds have one that is not the SHA-256 of their
        bytes. Raises InvalidBigDataName, InvalidDigest, OSError, and what `digest` raises; then nothing is changed.
        """
        if not key:
            raise InvalidBigDataName(f"can't set empty name for {self._collection.noun} big data item")
        big_data.check_key(key)
        digests = {} if digest is None else {key: _checked(digest if isinstance(digest, str) else digest(value))}
        with ExitStack() as stack:
            editor, record = stack.enter_context(self._item.changing())
            if isinstance(record, _Measured):  # else the record says nothing of the file that a crash could make wrong
                stack.enter_context(noted(self._collection.home(record), Intent(id=record.id, keys=(key,))))
            big_data.write(self._directory, key, value)
            self._item.record = with_data(record, {key: value}, digests)
            if self._item.record != record:
                editor.put(self._item.record)
                editor.save()

    def _refuse_empty(self, key: str, what: str) -> None:
        """Raise what the Go library raises for empty keys of containers only; other items just do not have them."""
        if not key and self._collection.noun == "container":
            raise InvalidBigDataName(f"can't retrieve {what} empty name")

    def _unknown(self, key: str) -> BigDataUnknown:
        noun = self._collection.noun
        if noun == "container":
            return BigDataFileUnknown(key, f"open {os.path.join(self._directory, big_data.file_name(key))}")
        what = f'locating item named "{key}" for {noun} with ID "{self._item.id}"'
        advice = " (consider removing the image to resolve the issue)" if noun == "image" else ""
        return BigDataUnknown(key, what + advice)


def _checked(digest: str) -> str:
    from layerhold.digests import Digest

    return str(Digest.parse(digest))


def with_data(record: R, data: Mapping[str, bytes], known: Mapping[str, str] = EMPTY) -> R:
    """Note names, and for images and containers sizes and digests too, of big data in a record.

    `known` has the digests of those whose digest is not that of their bytes.
    """
    from layerhold.digests import sha256_of

    names = (*record.big_data_names, *(key for key in data if key not in record.big_data_names))
    changes: dict[str, object] = {"big_data_names": names}
    if isinstance(record, _Measured):
        sizes = {key: len(value) for key, value in data.items()}
        digests = {key: known.get(key) or str(sha256_of(value)) for key, value in data.items()}
        changes["big_data_sizes"] = {**record.big_data_sizes, **sizes}
        changes["big_data_digests"] = digests = {**record.big_data_digests, **digests}
        if isinstance(record, ImageRecord) and not record.digest:
            # Go takes the first of these when it loads an image without one (images.go: recomputeDigests).
            changes["digest"] = next(
                (digests[key] for key in names if key.startswith("manifest") and key in digests), ""
            )
    return record.replace(**changes)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Drop what was there before, keeping the order."""
    return tuple(dict.fromkeys(names))
