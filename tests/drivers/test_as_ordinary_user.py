"""The driver suite by an ordinary user outside of any namespace, with pytest alone, as other packages run it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess

import pytest

from tests.users import OrdinaryUser

pytestmark = [pytest.mark.root]

PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")
SUITE = """
from layerhold.testing.driver_suite import DriverSuite

class TestVfs(DriverSuite):
    driver = "vfs"
"""


def test_vfs(ordinary_user: OrdinaryUser) -> None:
    tests = ordinary_user.home.parent / "tests"
    tests.mkdir()
    for name in PYTEST:
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        if spec.submodule_search_locations:
            shutil.copytree(spec.submodule_search_locations[0], tests / name)
        elif spec.origin:
            shutil.copy(spec.origin, tests)
    (tests / "test_vfs.py").write_text(SUITE)
    subprocess.run(["chmod", "-R", "a+rX", str(tests)], check=True)
    words = [ordinary_user.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests / "test_vfs.py")]
    done = ordinary_user.as_user(words, {"PYTHONPATH": f"{ordinary_user.code}:{tests}"}, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    # Left out is a check of layers that had devices, which he cannot make.
    assert re.search(r"\b10 passed, 1 skipped in", done.stdout), done.stdout[-2000:]
