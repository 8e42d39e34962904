"""The short links of overlay layers.

    <home>/l/<26 characters>  -> ../<id>/diff
    <home>/<id>/link          those 26 characters

They keep the option string of a mount short, and `lower` files are made of them. A link that was lost is made again
from the layer's `link` file, and a `link` file that is empty or missing from the link. Without both it is damage of
that layer alone (Go 1.64 removes the whole of `l/` when it meets an empty one). A link whose layer has gone is swept.
"""

from __future__ import annotations

import os
from binascii import b2a_hex

from layerhold.drivers.overlay_places import RESERVED, ids_in
from layerhold.tree.files import write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LENGTH = 26
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def new_link() -> str:
    """Make a name for a link: 26 random characters of base32."""
    number = int(b2a_hex(os.urandom(17)), 16)
    return "".join(_ALPHABET[number >> (5 * place) & 31] for place in range(_LENGTH))


def read_link_name(directory: str) -> str:
    """Give the link's name from a layer's directory, or "" if it has none that could be one."""
    try:
        with open(os.path.join(directory, "link")) as file:
            name = file.read(_LENGTH + 1)
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return ""
    return name if len(name) == _LENGTH and set(name) <= set(_ALPHABET) else ""


def make_link(home: str, id: str, name: str) -> None:
    """Make the link of layer `id`; one that is there, but leads elsewhere, is replaced."""
    path, target = os.path.join(home, "l", name), f"../{id}/diff"
    try:
        os.symlink(target, path)
    except FileExistsError:
        if os.readlink(path) != target:
            os.unlink(path)
            os.symlink(target, path)


def are_as_many(home: str) -> bool:
    """Tell whether there are as many links as layers.

    A directory has a link from each directory in it (`st_nlink`: ext4 up to 65,000 of them, xfs, tmpfs). Only where
    that is not counted, or there is something else in the home, are the layers looked at.
    """
    links = len(os.listdir(os.path.join(home, "l")))
    own = sum(os.path.isdir(os.path.join(home, name)) for name in RESERVED)
    return os.stat(home).st_nlink - 2 - own == links or sum(1 for _ in ids_in(home)) == links


def restore_links(home: str, ids: Iterable[str]) -> None:
    """Make the links again that are missing, and remove those whose layer has gone."""
    links = os.path.join(home, "l")
    ids = list(ids)
    wanted = {name: id for id in ids if (name := read_link_name(os.path.join(home, id)))}
    found = set(os.listdir(links))
    _restore_names(home, ids, found, wanted)
    for name in wanted.keys() - found:
        make_link(home, wanted[name], name)
    for name in found - wanted.keys():
        path = os.path.join(links, name)
        if os.path.islink(path) and not os.path.exists(path):
            os.unlink(path)


def _restore_names(home: str, ids: Sequence[str], found: set[str], wanted: dict[str, str]) -> None:
    """Write the `link` files again that are empty or missing where a link says what was in them."""
    nameless = set(ids) - set(wanted.values())
    for name in sorted(found - wanted.keys()) if nameless else ():
        path = os.path.join(home, "l", name)
        id = os.readlink(path).removeprefix("../").removesuffix("/diff") if os.path.islink(path) else ""
        if id in nameless and len(name) == _LENGTH and set(name) <= set(_ALPHABET):
            write_atomic(os.path.join(home, id, "link"), name.encode(), mode=0o644)
            nameless.discard(id)
            wanted[name] = id
