"""The README's example does what it says."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_example_runs(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("etc")
        member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, 0o755, os.getuid(), os.getgid()
        tar.addfile(member)
    (tmp_path / "rootfs.tar.gz").write_bytes(gzip.compress(packed.getvalue()))
    conf = tmp_path / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/root"\nrunroot = "{tmp_path}/run"\n')
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={**os.environ, "CONTAINERS_STORAGE_CONF": str(conf)},
        capture_output=True,
        text=True,
        check=True,
    )
    # The new file, and a tar with the two blocks of its entry and the two at the end.
    assert done.stdout.splitlines() == ["1 b'/hello'", "2048"]
