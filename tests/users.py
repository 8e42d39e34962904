"""An ordinary user, made for tests that root runs."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import programs, stores

NAME = "layerhold-test"
SYSTEM_PYTHON = "/usr/bin/python3"
WHEELS = ("isal", "fastcrc", "backports")


class OrdinaryUser:
    """A user, his home, and a Python that he can start with our package on its path."""

    def __init__(self, entry: pwd.struct_passwd, folder: Path, python: str) -> None:
        self.name = entry.pw_name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = folder / "home"
        self.code = folder / "code"
        self.python = python
        self._runtime = folder / "runtime"

    def as_user(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, *, check: bool = True, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with this user's rights, in his home, with an environment of his own."""
        done = subprocess.run(
            list(command), check=False, input=stdin, capture_output=True, timeout=300, **self._as_user(env or {})
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} as {self.name} ended with {done.returncode}:\n{out}{err}")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command that is written to and read from while it runs."""
        return subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, **self._as_user({}))

    def _as_user(self, env: Mapping[str, str]) -> dict[str, Any]:
        """What `subprocess` needs to run a command with this user's rights."""
        own = {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "XDG_RUNTIME_DIR": str(self._runtime),
            "PYTHONPATH": str(self.code),
            "LC_ALL": "C.UTF-8",
        }
        return {"cwd": self.home, "env": own | dict(env), "user": self.uid, "group": self.gid, "extra_groups": []}

    def layerhold(self, *args: str, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run our command with this user's rights."""
        start = "import sys; from layerhold.cli.main import run; sys.exit(run())"
        return self.as_user([self.python, "-c", start, *args], check=check, stdin=stdin)


@contextmanager
def a_user() -> Iterator[OrdinaryUser]:
    """The test user, made when missing, with an empty home that is removed at the end."""
    entry = _account()
    folder = Path(tempfile.mkdtemp(prefix="layerhold-user-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        user = OrdinaryUser(entry, folder, _python())
        for place in (user.home, folder / "runtime"):
            place.mkdir(mode=0o700)
            os.chown(place, user.uid, user.gid)
        _copy_code(user.code, user.python)
        yield user
    finally:
        stores.clear(folder)


def _account() -> pwd.struct_passwd:
    with programs.locked(programs.WORK / "user.lock"):
        try:
            return pwd.getpwnam(NAME)
        except KeyError:
            if not shutil.which("useradd"):
                raise programs.Unavailable("useradd is not installed (Debian: apt-get install passwd)") from None
            programs.run("useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", NAME)
            return pwd.getpwnam(NAME)


def _python() -> str:
    """The system's own Python, since ours may be in a folder that only root can enter."""
    if not Path(SYSTEM_PYTHON).exists():
        raise programs.Unavailable(f"{SYSTEM_PYTHON} is not installed: another user has no Python to start")
    return SYSTEM_PYTHON


def _copy_code(into: Path, python: str) -> None:
    """Our package, and the wheels that it uses where they fit that Python (without them it has its own ways)."""
    into.mkdir()
    source = Path(programs.__file__).resolve().parent.parent / "src" / "layerhold"
    shutil.copytree(source, into / "layerhold", ignore=shutil.ignore_patterns("__pycache__"))
    version = programs.run(python, "-I", "-c", "import sys; print(*sys.version_info[:2])").split()
    if version == [str(part) for part in sys.version_info[:2]]:
        for name in WHEELS:
            spec = importlib.util.find_spec(name)
            for place in (spec.submodule_search_locations or []) if spec else []:
                shutil.copytree(place, into / name, dirs_exist_ok=True)
    programs.run(python, "-m", "compileall", "-q", str(into))  # the user cannot keep what his Python compiles
    subprocess.run(["chmod", "-R", "a+rX", str(into)], check=True)
