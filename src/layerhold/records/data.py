"""Big data: named blobs in files beside a record.

A key of `a-z`, `0-9` and `.` only is the file's name; any other becomes `=` and the padded base64 of its bytes
(containers/storage, images.go: makeBigDataBaseName). Base64 may hold a slash: Go fails on such keys, ours refuses them.
"""

from __future__ import annotations

import os
from binascii import b2a_base64

from layerhold.errors import BigDataUnknown, InvalidBigDataName
from layerhold.tree.files import make_dirs, write_atomic

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
    if len(name) > 200:
        raise InvalidBigDataName(f"a key of {len(key)} characters is too long for a file's name")
    return name


def read(directory: str, key: str) -> bytes:
    """Give the bytes of `key`. Raises BigDataUnknown, InvalidBigDataName, OSError."""
    path = os.path.join(directory, file_name(key))
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise BigDataUnknown(key) from None


def write(directory: str, key: str, value: bytes) -> None:
    """Put `value` in the file of `key`; the directory is made if need be. Raises InvalidBigDataName, OSError."""
    path = os.path.join(directory, file_name(key))
    make_dirs(directory)
    write_atomic(path, value)
