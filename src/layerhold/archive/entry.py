"""What a tar stream says of one file."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Entry", "clean", "climbs"]

_SLASH = ord("/")
_ODD_STARTS = frozenset((b"", b"/", b"."))
_NO_XATTRS: Mapping[bytes, bytes] = {}


class Entry:
    """One header of a tar stream. Sizes are in bytes, times in nanoseconds; names are as in the header.

    `path` is `name` cleaned as if the root were `/`: no leading slash, no `.` or `..`, empty for the root itself.
    `size` bytes of content follow in the stream; `real_size` is how long the file is. They differ where `sparse`
    (offset and length of each stretch that is stored) is not None. `kind` is the type flag, where `0` stands for all
    that are ordinary files.
    """

    atime: int | None = None
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = _NO_XATTRS
    sparse: list[tuple[int, int]] | None = None

    def __init__(  # noqa: PLR0917 - made once a header: names of arguments cost time.
        self, name: bytes, path: bytes, kind: bytes, owner: tuple[int, int, int], size: int, mtime: int
    ) -> None:
        self.name = name
        self.path = path
        self.kind = kind
        self.mode, self.uid, self.gid = owner
        self.size = self.real_size = size
        self.mtime = mtime

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, kind={self.kind!r}, size={self.size})"


def clean(name: bytes) -> bytes:
    """Take a name as a path below the root, as Go's `path.Clean("/" + name)` would, without the slash in front."""
    # `find`, since `in` takes four times as long for bytes.
    if name.startswith(b"./"):
        name = name[2:]
    if name.find(b"/.") < 0 and name.find(b"//") < 0 and name[:1] not in _ODD_STARTS:
        return name[:-1] if name[-1] == _SLASH else name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def climbs(name: bytes) -> bool:
    """Tell whether a name leads above the root by "..", whatever there is on the way."""
    depth = 0
    for part in name.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False
