from __future__ import annotations

import sys

import pytest

from layerhold import digests
from layerhold.digests import Digest, crc64, sha256_of
from layerhold.errors import InvalidDigest


@pytest.mark.parametrize(("data", "value"), [(b"", 0), (b"hello\n", 0x614C3EEEE2D81000), (b"1", 0x4320000000000000)])
def test_crc64_is_that_of_go(data: bytes, value: int) -> None:
    assert crc64(data) == value
    assert digests._folded(data) == value


def test_crc64_goes_on_from_a_value() -> None:
    assert crc64(b"llo\n", crc64(b"he")) == crc64(b"hello\n")
    assert crc64(memoryview(b"xhello\n")[1:]) == crc64(b"hello\n")


def test_crc64_without_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastcrc.crc64", None)
    assert digests._fastest() is digests._folded


def test_sha256_of() -> None:
    digest = sha256_of(b"")
    assert digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (digest.algorithm, digest.hex[:4]) == ("sha256", "e3b0")
    assert Digest.parse(digest) == digest


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "invalid checksum digest format"),
        ("sha256:", "invalid checksum digest format"),
        ("sha256:" + "A" * 64, "invalid checksum digest format"),
        ("sha256:" + "0" * 63, "invalid checksum digest length"),
        ("md5:" + "0" * 32, "unsupported digest algorithm"),
        ("MD5:" + "0" * 32, "invalid checksum digest format"),
        ("0" * 64, "invalid checksum digest format"),
        ("sha256:" + "\N{ARABIC-INDIC DIGIT ZERO}" * 64, "invalid checksum digest format"),
    ],
)
def test_what_is_no_digest_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(InvalidDigest) as raised:
        Digest.parse(text)
    assert (str(raised.value), raised.value.text) == (sentence, text)
