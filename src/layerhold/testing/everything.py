"""Two layers with every kind of file and of change, as tars, and the trees that are to come of them.

The base has files of all kinds, owners, modes, times to the nanosecond, attributes, holes, hard links, and names that
are long, or no UTF-8. The top hides names and whole directories at several depths, puts files in the place of
directories and the reverse, and changes single things. What the trees are to be is worked out here, in a dictionary, by
what the OCI's image specification says of layers, without any of the code that is tested.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING, NamedTuple

from layerhold.testing.trees import KINDS, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MODES = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service, effective
_DEEP = b"/".join([b"deep"] * 12)


class Can(NamedTuple):
    """What whoever runs the tests may do: give files to others, make devices, set attributes of the system."""

    owners: bool
    devices: bool
    attributes: bool

    @classmethod
    def here(cls) -> Can:
        """Find it out: root may do all of it, root of a user namespace neither of the last two."""
        from layerhold.linux.idmap import in_user_namespace

        root, inside = os.geteuid() == 0, in_user_namespace()
        return cls(owners=root, devices=root and not inside, attributes=root and not inside)


class File(NamedTuple):
    """An entry of a layer. `link` is what a symbolic link says, or the name that a hard link is another name of."""

    path: bytes
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    time: str = "1500000000.123456789"
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


def base(can: Can) -> list[File]:
    """Give the entries of a layer with all kinds of files that can be made here."""
    folder, link, hard = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    files = [
        File(b"a", folder, mode=0o755),
        File(b"a/file", content=b"content\n"),
        File(b"a/empty", mode=0o600, time="1.000000001"),
        File(b"a/setuid", content=b"#!/bin/sh\n", mode=0o4755),
        File(b"a/hard", hard, link=b"a/file"),
        File(b"a/large", content=bytes(range(256)) * 6000, owner=(1000, 1000)),
        File(b"a/holes", content=b"begin" + bytes(2 << 20) + b"end"),
        File(b"a/attributed", content=b"x", xattrs=(("user.note", b"binary\0value"),)),
        File(b"b", folder, mode=0o1777, owner=(12, 34), time="1400000000.5"),
        File(b"b/link", link, mode=0o777, link=b"../a/file"),
        File(b"b/dangling", link, mode=0o777, link=b"/nowhere/at all", owner=(5, 6)),
        File(b"b/other name", hard, link=b"a/file"),
        File(b"b/fifo", tarfile.FIFOTYPE, mode=0o622),
        File(b"b/" + b"long" * 60, content=b"long name"),
        File(b"b/no \xff\xfe utf-8", content=b"bytes"),
        File(b"b/line\nbreak", content=b"two lines"),
        File(b"going", folder, mode=0o755),
        File(b"going/one", content=b"1"),
        File(b"going/two", folder, mode=0o700),
        File(b"going/two/three", content=b"3"),
        File(b"was a directory", folder, mode=0o755),
        File(b"was a directory/inner", content=b"inner"),
        File(b"was a file", content=b"file"),
        File(b"refilled", folder, mode=0o755),
        File(b"refilled/old", content=b"old"),
    ]
    for count in range(1, 13):
        here = b"/".join([b"deep"] * count)
        files += [File(here, folder, mode=0o755), File(here + b"/file", content=b"%d" % count)]
    if can.devices:
        files += [
            File(b"b/null", tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
            File(b"b/loop", tarfile.BLKTYPE, mode=0o660, device=(7, 0), owner=(0, 6)),
        ]
    if can.attributes:
        files.append(File(b"a/capable", content=b"#!", mode=0o755, xattrs=(("security.capability", _CAPABILITY),)))
    return files if can.owners else [_own(file) for file in files]


def top(can: Can) -> list[File]:
    """Give the entries of a layer over it that changes something in every way there is."""
    folder = tarfile.DIRTYPE
    files = [
        File(b"a", folder, mode=0o750, time="1600000000.000000001"),
        File(b"a/.wh.empty"),
        File(b"a/file", content=b"other content\n", time="1600000001"),
        File(b"a/large", content=bytes(range(256)) * 6000, mode=0o600, owner=(1000, 7)),
        File(b"going", folder, mode=0o755),
        File(b"going/.wh.two"),
        File(b"was a directory", content=b"now a file"),
        File(b"was a file", folder, mode=0o755),
        File(b"was a file/inner", content=b"inner"),
        File(b"refilled", folder, mode=0o711),
        File(b"refilled/.wh..wh..opq"),
        File(b"refilled/new", content=b"new"),
        File(b"new", folder, mode=0o755),
        File(b"new/link", tarfile.SYMTYPE, mode=0o777, link=b"."),
    ]
    files += [File(b"/".join([b"deep"] * count), folder, mode=0o755) for count in range(1, 13)]
    files.append(File(_DEEP + b"/.wh.file"))
    return files if can.owners else [_own(file) for file in files]


def _own(file: File) -> File:
    return file._replace(owner=(os.geteuid(), os.getegid()))


def as_tar(files: Sequence[File]) -> bytes:
    """Write entries as a tar in PAX format."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            info = tarfile.TarInfo(os.fsdecode(file.path))
            info.type, info.mode, info.size = file.kind, file.mode, len(file.content)
            info.uid, info.gid = file.owner
            info.linkname = os.fsdecode(file.link)
            info.devmajor, info.devminor = file.device
            info.mtime = int(float(file.time))
            info.pax_headers = {"mtime": file.time} | {
                f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in file.xattrs
            }
            archive.addfile(info, io.BytesIO(file.content))
    return out.getvalue()


def expected(*layers: Sequence[File]) -> dict[bytes, Row]:
    """Work out the tree that shows these layers, the lowest first; without its top."""
    tree: dict[bytes, Row] = {}
    for files in layers:
        below = dict(tree)
        for file in files:
            _add(tree, below, file)
    first: dict[bytes, bytes] = {}
    for path in sorted(tree):
        first.setdefault(tree[path].same_as, path)
    return {path: row._replace(same_as=first[row.same_as]) for path, row in tree.items()}


def _add(tree: dict[bytes, Row], below: Mapping[bytes, Row], file: File) -> None:
    directory, _, name = file.path.rpartition(b"/")
    if name == b".wh..wh..opq":
        for path in _inside(below, directory):
            tree.pop(path, None)
    elif name.startswith(b".wh."):
        hidden = os.path.join(directory, name[4:])
        for path in (hidden, *_inside(below, hidden)):
            tree.pop(path, None)
    elif file.kind == tarfile.LNKTYPE:
        tree[file.path] = tree[file.link]
    else:
        if file.kind != tarfile.DIRTYPE:
            for path in list(_inside(tree, file.path)):
                del tree[path]
        tree[file.path] = _row(file, group=b"%d %b" % (len(below), file.path))


def _inside(tree: Mapping[bytes, Row], directory: bytes) -> Iterator[bytes]:
    yield from [path for path in tree if path.startswith(directory + b"/")]


def _row(file: File, *, group: bytes) -> Row:
    """Give what is to be on disk; files with one `group` are one file."""
    seconds, _, fraction = file.time.partition(".")
    kind = KINDS.get(_MODES[file.kind], "other")
    return Row(
        kind=kind,
        mode=file.mode,
        uid=file.owner[0],
        gid=file.owner[1],
        size=len(file.content) if kind == "file" else 0,
        mtime_ns=int(seconds) * 10**9 + int(fraction.ljust(9, "0") or 0),
        device=os.makedev(*file.device),
        link=file.link,
        content=hashlib.sha256(file.content).hexdigest() if kind == "file" else "",
        xattrs=file.xattrs,
        same_as=group,
    )
