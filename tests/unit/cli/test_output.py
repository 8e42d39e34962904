from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layerhold.cli.output import described, reading
from layerhold.errors import LayerUnknown, NotPermitted


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOENT, "No such file or directory", "/a"), "/a: no such file or directory"),
        (
            OSError(errno.ENOENT, "No such file or directory", b"/a\xff"),
            f"{os.fsdecode(b'/a' + bytes([255]))}: no such file or directory",
        ),
        (OSError(errno.EBUSY, "umount: Device or resource busy", "/a"), "umount /a: device or resource busy"),
        (OSError(errno.ENOSPC, "No space left on device", "/a", None, "/b"), "/a /b: no space left on device"),
        (OSError(errno.ENOSPC, "No space left on device", 3), "no space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (OSError(errno.EINVAL, "NUL in a name", "/a"), "/a: NUL in a name"),
        (OSError("odd"), "odd"),
        (NotPermitted("chown /a"), "chown /a: not permitted"),
        (LayerUnknown("x"), "layer not known"),
    ],
)
def test_errors_as_go_words_them(error: BaseException, text: str) -> None:
    assert described(error) == text


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, reading(str(tmp_path / "gone")):
        pass
    assert described(caught.value) == f"open {tmp_path}/gone: no such file or directory"
