"""The one pass: digests, owners, tar-split file and tree of a layer, and what is left when it fails."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerhold.archive.apply import apply
from layerhold.archive.assemble import assemble
from layerhold.archive.extract import ERASE
from layerhold.errors import BadArchive, DigestMismatch, RefusedEntry
from layerhold.progress import Progress
from layerhold.tree.root import Root

UID, GID = os.getuid(), os.getgid()


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.uid, info.gid = len(content), UID, GID
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sample() -> bytes:
    return tar(
        member("d", type=tarfile.DIRTYPE, mode=0o755),
        member("d/f", b"content" * 1000),
        member("d/empty"),
        member("d/l", type=tarfile.SYMTYPE, linkname="f"),
        member("d/h", type=tarfile.LNKTYPE, linkname="d/f"),
        member("x" * 150, b"1"),
    )


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def reassembled(split: Path, tree: Path) -> bytes:
    with Root(str(tree)) as root:
        return b"".join(assemble(str(split), root.open_file))


def test_what_is_reported(tmp_path: Path) -> None:
    plain = sample()
    packed = gzip.compress(plain)
    applied = apply(io.BytesIO(packed), str(tmp_path), deletions=ERASE)
    assert applied.compression == 2
    assert (applied.compressed_digest, applied.compressed_size) == (sha256(packed), len(packed))
    assert (applied.diff_digest, applied.diff_size) == (sha256(plain), len(plain))
    assert (applied.uids, applied.gids) == ((UID,), (GID,))
    assert applied.content_size == 7001
    assert applied.left_out == 0


@pytest.mark.root
def test_owners_are_those_of_all_but_whiteouts(tmp_path: Path) -> None:
    data = tar(member("a", uid=1000, gid=5), member("b", uid=3, gid=5), member(".wh.c", uid=99, gid=98))
    applied = apply(io.BytesIO(data), str(tmp_path), deletions=ERASE)
    assert (applied.uids, applied.gids) == ((3, 1000), (5,))


@pytest.mark.parametrize("end", [b"", b"\0" * 512, b"\0" * 20_000, b"\0" * 1024 + b"garbage" * 1000])
def test_the_stream_comes_back_byte_for_byte(end: bytes, tmp_path: Path) -> None:
    data = sample().rstrip(b"\0")
    data += b"\0" * (-len(data) % 512) + end
    tree, split = tmp_path / "t", tmp_path / "split"
    tree.mkdir()
    applied = apply(io.BytesIO(data), str(tree), deletions=ERASE, split_path=str(split))
    assert applied.diff_digest == sha256(data)
    assert reassembled(split, tree) == data


def test_odd_content_goes_into_the_split_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        file.write(b"a" * 5000)
        file.seek(1 << 20)
        file.write(b"b" * 300)
    owner = [f"--owner={UID}", f"--group={GID}"]
    for number, how in enumerate((["--format=gnu"], ["--format=pax"], ["--format=pax", "--sparse-version=0.0"])):
        tree, split = tmp_path / f"t{number}", tmp_path / f"split{number}"
        tree.mkdir()
        data = subprocess.run(
            ["tar", *how, *owner, "--sparse", "-C", source, "-c", "sparse"], check=True, capture_output=True
        ).stdout
        data = (
            tar(member("first", b"1"), member(".wh.gone", b"whiteout with content")).rstrip(b"\0").ljust(2048, b"\0")
            + data
        )
        apply(io.BytesIO(data), str(tree), deletions=ERASE, split_path=str(split))
        assert (tree / "sparse").read_bytes() == (source / "sparse").read_bytes()
        assert reassembled(split, tree) == data


def test_the_split_file_holds_no_content(tmp_path: Path) -> None:
    tree, split = tmp_path / "t", tmp_path / "split"
    tree.mkdir()
    apply(io.BytesIO(sample()), str(tree), deletions=ERASE, split_path=str(split))
    lines = [json.loads(line) for line in gzip.decompress(split.read_bytes()).splitlines()]
    kept = b"".join(base64.b64decode(line["payload"] or "") for line in lines if line["type"] == 2)
    assert b"content" not in kept
    assert [line["name"] for line in lines if line["type"] == 1] == ["d/" if n == "d" else n for n in (
        "d", "d/f", "d/empty", "d/l", "d/h", "x" * 150)]  # fmt: skip


def test_two_global_headers_are_fine(tmp_path: Path) -> None:
    one, two = (
        tarfile.TarInfo.create_pax_global_header({"comment": text}) + tar(member(text)).rstrip(b"\0").ljust(512, b"\0")
        for text in ("a", "b")
    )
    tree, split = tmp_path / "t", tmp_path / "split"
    tree.mkdir()
    apply(io.BytesIO(one + two), str(tree), deletions=ERASE, split_path=str(split))
    assert sorted(os.listdir(tree)) == ["a", "b"]
    assert reassembled(split, tree) == one + two


@pytest.mark.parametrize("packed", [False, True])
def test_the_digest_is_checked(packed: bool, tmp_path: Path) -> None:
    plain = sample()
    data = gzip.compress(plain) if packed else plain
    for number, expected in enumerate((sha256(plain), sha256(data))):
        (tmp_path / str(number)).mkdir()
        apply(io.BytesIO(data), str(tmp_path / str(number)), deletions=ERASE, expect=expected)
    (tmp_path / "wrong").mkdir()
    with pytest.raises(DigestMismatch, match=sha256(b"")):
        apply(io.BytesIO(data), str(tmp_path / "wrong"), deletions=ERASE, expect=sha256(b""))


@pytest.mark.parametrize("cut", [100, 700, 1100, 3000, 9000])
def test_a_cut_stream_is_refused(cut: int, tmp_path: Path) -> None:
    with pytest.raises(BadArchive):
        apply(io.BytesIO(sample()[:cut]), str(tmp_path), deletions=ERASE, split_path=str(tmp_path / "split"))


def test_an_error_of_the_stream_is_passed_on(tmp_path: Path) -> None:
    class Broken:
        def read(self, _size: int, /) -> bytes:
            raise OSError("network gone")

    with pytest.raises(OSError, match="network gone"):
        apply(Broken(), str(tmp_path), deletions=ERASE)


def test_too_many_owners_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerhold.archive.apply._MAX_OWNERS", 3)
    data = tar(*(member(f"f{n}", uid=UID if n == 0 else n + 70_000) for n in range(5)))
    with pytest.raises(RefusedEntry, match="different owners"):
        apply(io.BytesIO(data), str(tmp_path), deletions=ERASE, squash=True)


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.root
@pytest.mark.parametrize("options", ["size=64k", "nr_inodes=8"])
def test_a_full_disk_is_an_error_that_names_the_entry(options: str, tmp_path: Path) -> None:
    data = tar(*(member(f"file{n}", b"x" * 20_000) for n in range(20)))
    with small_disk(tmp_path / "disk", options), pytest.raises(OSError, match=r"No space left.*file") as caught:
        apply(io.BytesIO(data), str(tmp_path / "disk"), deletions=ERASE)
    assert caught.value.errno == 28


def test_memory_does_not_grow_with_names(tmp_path: Path) -> None:
    class Endless:
        """Whiteouts of names that are not there, which leave nothing on disk."""

        def __init__(self, count: int) -> None:
            self.parts = iter(range(count))

        def read(self, _size: int, /) -> bytes:
            number = next(self.parts, None)
            if number is None:
                return b""
            return b"".join(
                member(f".wh.{number}-{more}-{'n' * 70}")[0].tobuf(tarfile.USTAR_FORMAT) for more in range(100)
            )

    apply(Endless(1), str(tmp_path), deletions=ERASE)
    tracemalloc.start()
    try:
        apply(Endless(150), str(tmp_path), deletions=ERASE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (16 << 20) + 15_000 * 100


# -- progress


def test_progress_ends_with_all_that_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"front" + gzip.compress(sample()))
    (tmp_path / "tree").mkdir()
    said: list[Progress] = []
    with (tmp_path / "a.tar.gz").open("rb") as file:
        file.seek(5)
        apply(file, str(tmp_path / "tree"), deletions=ERASE, progress=said.append)
    size = (tmp_path / "a.tar.gz").stat().st_size - 5
    assert said[-1] == Progress(phase="unpacking", bytes=size, entries=6, total_bytes=size, total_entries=None)


def test_the_total_of_a_stream_is_not_known(tmp_path: Path) -> None:
    said: list[Progress] = []
    apply(io.BytesIO(sample()), str(tmp_path), deletions=ERASE, progress=said.append)
    assert (said[-1].bytes, said[-1].total_bytes) == (len(sample()), None)


def test_a_callback_that_raises_ends_it_with_what_it_raises(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(_progress: Progress) -> None:
        raise Enough

    with pytest.raises(Enough):
        apply(io.BytesIO(sample()), str(tmp_path), deletions=ERASE, progress=stop)
