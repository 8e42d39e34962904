"""Stores as the aufs driver left them, made from what is known of their layout: no program makes them any more.

A store of vfs gives records, tar-split files and big data, whichever program made it; the layers' own files are put
where aufs had them. What came in as a tar was unpacked by aufs's driver with whiteouts as files (`.wh.<name>`); what a
container wrote has the kernel's own names besides, and all its whiteouts are names of one file.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerhold.store import Store

BASE, MIDDLE, TOP = "1" * 64, "2" * 64, "3" * 64
IMAGE = "4" * 64
NAME = "localhost/old:1"
CONFIG = b'{"architecture":"amd64","os":"linux"}'
TIME = 1_500_000_000


def tar(*members: tuple[str, bytes | str | None] | tarfile.TarInfo) -> bytes:
    """A tar: (name, content), (name, None) for a directory, (name, target) for a hard link, or members made before."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.mtime = TIME
            info.mode = 0o755 if content is None else 0o644
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.LNKTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return stream.getvalue()


def _owned() -> tarfile.TarInfo:
    info = tarfile.TarInfo("etc/owned")
    info.mtime, info.mode = TIME, 0o4750
    info.uid, info.gid = (1234, 567) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    return info


def _link() -> tarfile.TarInfo:
    info = tarfile.TarInfo("bin")
    info.type, info.linkname, info.mode, info.mtime = tarfile.SYMTYPE, "usr/bin", 0o777, TIME
    return info


DIFFS = {
    BASE: tar(
        ("etc", None), ("etc/conf", b"first"), ("etc/gone", b"1"), ("etc/kept", b"2"), _owned(),
        ("opt", None), ("opt/a", b"a"), ("opt/deep", None), ("opt/deep/b", b"b"),
        ("usr", None), ("usr/bin", None), ("usr/bin/one", b"#!one"), ("usr/bin/two", "usr/bin/one"), _link(),
        ("was-dir", None), ("was-dir/old", b"old"), ("was-file", b"file"), ("tmp", None),
    ),
    MIDDLE: tar(
        ("etc", None), ("etc/.wh.gone", b""), ("etc/conf", b"second"),
        ("opt", None), ("opt/.wh..wh..opq", b""), ("opt/new", b"new"),
        (".wh.was-dir", b""), ("was-dir", b"a file now"), (".wh.was-file", b""), ("was-file", None),
        ("was-file/in", b"in"),
    ),
}  # fmt: skip


def make(graphroot: Path, runroot: Path) -> None:
    """Make an aufs store with two layers that came in, an image over them, and a container that wrote to its layer."""
    with Store.open(graphroot=graphroot, runroot=runroot, driver="vfs") as store:
        base = store.layers.create(id=BASE, names=["base"], diff=io.BytesIO(DIFFS[BASE]), writable=False)
        middle = store.layers.create(base, id=MIDDLE, diff=io.BytesIO(DIFFS[MIDDLE]), metadata="text")
        middle.data.set("key", b"big data of a layer")
        image = store.images.create(
            layer=middle, id=IMAGE, names=[NAME], data={"manifest": b"{}", f"sha256:{IMAGE}": CONFIG}
        )
        container = store.containers.create(image=image, names=["box"], metadata="about it", data={"key": b"value"})
        (container.directory / "state").write_bytes(b"of whoever runs it")
        top = container.layer_id
    of_vfs(graphroot, DIFFS)
    write_as_the_kernel_did(graphroot / "aufs/diff" / top)


def of_vfs(graphroot: Path, diffs: Mapping[str, bytes]) -> None:
    """Make an aufs store of one of vfs; `diffs` are the tars of its layers that came in."""
    home = graphroot / "aufs"
    for name in ("diff", "layers", "mnt"):
        (home / name).mkdir(parents=True)
    records = layers(graphroot, "vfs")
    for record in records.values():
        id = record["id"]
        (home / "mnt" / id).mkdir()
        (home / "diff" / id).mkdir(0o755)
        below, parent = [], record.get("parent")
        while parent:
            below.append(parent)
            parent = records[parent].get("parent")
        (home / "layers" / id).write_text("".join(f"{layer}\n" for layer in below))
        if id in diffs:
            with tarfile.open(fileobj=io.BytesIO(diffs[id])) as archive:
                archive.extractall(home / "diff" / id, numeric_owner=True, filter="fully_trusted")
                for member in filter(tarfile.TarInfo.issym, archive):
                    os.utime(home / "diff" / id / member.name, (TIME, TIME), follow_symlinks=False)
    for kind in ("layers", "images", "containers"):
        (graphroot / f"vfs-{kind}").rename(graphroot / f"aufs-{kind}")
    shutil.rmtree(graphroot / "vfs")


def layers(graphroot: Path, driver: str = "aufs") -> dict[str, dict[str, Any]]:
    """The records of layers, by their IDs."""
    return {record["id"]: record for record in json.loads((graphroot / f"{driver}-layers/layers.json").read_text())}


def write_as_the_kernel_did(diff: Path) -> None:
    """What a container of the image in `make` wrote: names that came, changed and went, and aufs's own."""
    mark = diff / ".wh..wh.aufs"
    mark.touch(0o444)
    (diff / ".wh..wh.orph").mkdir(0o700)
    (diff / ".wh..wh.plnk").mkdir(0o700)
    (diff / "etc").mkdir()
    (diff / "etc/conf").write_bytes(b"third")
    os.link(mark, diff / "etc/.wh.kept")
    os.link(mark, diff / ".wh.tmp")
    (diff / "usr/bin").mkdir(parents=True)
    (diff / "usr/bin/three").write_bytes(b"#!three")
    os.link(diff / "usr/bin/three", diff / "usr/bin/four")
    os.link(diff / "usr/bin/three", diff / ".wh..wh.plnk/123.456")
    (diff / "opt").mkdir()
    os.link(mark, diff / "opt/.wh..wh..opq")
    (diff / "opt/newer").write_bytes(b"newer")
    (diff / "run").mkdir(0o700)


SEEN = {
    BASE: {
        "bin", "etc/conf", "etc/gone", "etc/kept", "etc/owned", "opt/a", "opt/deep/b", "usr/bin/one", "usr/bin/two",
        "was-dir/old", "was-file",
    },
    MIDDLE: {
        "bin", "etc/conf", "etc/kept", "etc/owned", "opt/new", "usr/bin/one", "usr/bin/two", "was-dir", "was-file/in",
    },
    TOP: {
        "bin", "etc/conf", "etc/owned", "opt/newer", "usr/bin/four", "usr/bin/one", "usr/bin/three", "usr/bin/two",
        "was-dir", "was-file/in",
    },
}  # fmt: skip
"""What is no directory in each layer's whole tree; TOP stands for the container's layer, whose ID is random."""
