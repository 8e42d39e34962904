"""Big data: named blobs in files beside a record.

A key of `a-z`, `0-9` and `.` only is the file's name; any other becomes `=` and the padded base64 of its bytes
(containers/storage, images.go: makeBigDataBaseName). Base64 may hold a slash: Go fails on such keys, ours refuses them.
"""

from __future__ import annotations

import os
from binascii import b2a_base64

from layerhold.errors import BigDataUnknown, InvalidBigDataName
from layerhold.tree.files import make_dirs, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_LONGEST = 239  # of the 255 bytes of a name, less those of a temporary file's, Go's included
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.")


def file_name(key: str) -> str:
    """Give the name of the file for `key`. Raises InvalidBigDataName for keys that have none."""
    if not key:
        raise InvalidBigDataName("an empty key")
    if key == "userdata":
        raise InvalidBigDataName('"userdata" is the name of a directory beside the big data')
    if _PLAIN.issuperset(key):
        if key in (".", ".."):
            raise InvalidBigDataName(f'"{key}"')
        return key
    name = "=" + b2a_base64(os.fsencode(key), newline=False).decode()
    if "/" in name:
        raise InvalidBigDataName(f'"{key}" would be in a file with a slash in its name ({name})')
    return name


def check_key(key: str) -> None:
    """See that big data can be written under `key`. Raises InvalidBigDataName."""
    if len(file_name(key)) > _LONGEST:
        raise InvalidBigDataName(f"a key of {len(key)} characters is too long for a file's name")


def open_data(directory: str, key: str) -> BinaryIO:
    """Open the file of `key` for reading. Raises BigDataUnknown, InvalidBigDataName, OSError."""
    try:
        return open(os.path.join(directory, file_name(key)), "rb")
    except FileNotFoundError:
        raise BigDataUnknown(key) from None


def read(directory: str, key: str) -> bytes:
    """Give the bytes of `key`. Raises BigDataUnknown, InvalidBigDataName, OSError."""
    with open_data(directory, key) as file:
        return file.read()


def write(directory: str, key: str, value: bytes) -> None:
    """Put `value` in the file of `key`; the directory is made if need be. Raises InvalidBigDataName, OSError."""
    check_key(key)
    make_dirs(directory)
    write_atomic(os.path.join(directory, file_name(key)), value)
