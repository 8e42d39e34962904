"""What every test shares: what a test needs, what is left out and why, and folders that clean up after themselves.

Marks: `root`, `compat` (the Go programs), `rootfs` (the big inputs), `vm` (a second kernel). Whoever uses the fixtures
`programs`, `rootfs` or `small` gets the mark by that. A test that cannot have what it needs skips and says so, and the
run lists them at its end. With `CI=true`, root leaves none of the marked ones out: a skipped one fails the run.
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

from layerhold.tree.files import remove_tree
from tests import inputs as inputs_module
from tests import programs as programs_module
from tests import stores
from tests.users import OrdinaryUser, a_user

MARKED = frozenset({"root", "compat", "rootfs", "vm"})
MARK_OF_FIXTURE = {"programs": "compat", "rootfs": "rootfs", "small": "rootfs", "ordinary_user": "root"}
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS") or 0)

hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("steady")

_left_out: dict[str, list[str]] = defaultdict(list)
_marked_left_out: list[str] = []


# -- what a test needs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if mark := MARK_OF_FIXTURE.get(fixture):
                item.add_marker(mark)
        if os.geteuid() and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root (mounts, owners, devices or another user)"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    return (yield from _skipping_what_cannot_be_had())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    return (yield from _skipping_what_cannot_be_had())


def _skipping_what_cannot_be_had() -> Generator[None, Any, Any]:
    try:
        return (yield)
    except programs_module.Unavailable as reason:
        pytest.skip(str(reason))


# -- what was left out


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    _left_out[reason.removeprefix("Skipped: ")].append(report.nodeid)
    if MARKED & report.keywords.keys():
        _marked_left_out.append(report.nodeid)


def _must_not_be_left_out() -> bool:
    return bool(_marked_left_out) and os.environ.get("CI") == "true" and os.geteuid() == 0


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _must_not_be_left_out() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _left_out:
        return
    terminalreporter.section("left out")
    for reason, tests in sorted(_left_out.items()):
        places = sorted({test.split("::")[0] for test in tests})
        terminalreporter.line(f"{len(tests)} x {reason}: {', '.join(places)}")
    if _must_not_be_left_out():
        terminalreporter.line(f"FAILED: CI leaves out none of these, but {len(_marked_left_out)} were:", red=True)
        for test in _marked_left_out:
            terminalreporter.line(f"  {test}", red=True)


# -- fuzzing: each property test again and again with fresh input, for FUZZ_SECONDS


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    function: Any = getattr(test, "__func__", test)
    if not FUZZ_SECONDS or not getattr(function, "is_hypothesis_test", False):
        return None
    steady = function._hypothesis_internal_use_settings
    function._hypothesis_internal_use_settings = hypothesis.settings(steady, derandomize=False)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    end = time.monotonic() + FUZZ_SECONDS
    while time.monotonic() < end:
        function._hypothesis_internal_use_seed = random.getrandbits(64)
        test(**arguments)
    return True


# -- fixtures


@pytest.fixture(autouse=True)
def _remove_what_is_too_deep_for_pytest(request: pytest.FixtureRequest) -> Iterator[None]:
    """pytest keeps the folders of three runs and then removes the oldest by recursion, which a deep tree ends."""
    folder: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None and folder.exists():
        remove_tree(str(folder))


@pytest.fixture(scope="session")
def programs() -> ModuleType:
    """The module `tests.programs`: the Go programs, which are fetched when first asked for."""
    return programs_module


@pytest.fixture(scope="session")
def rootfs() -> inputs_module.Input:
    """A Debian root filesystem as tar, tar.gz and tar.zst."""
    return inputs_module.rootfs()


@pytest.fixture(scope="session")
def small() -> inputs_module.Input:
    """A layer of 30,000 small files as tar, tar.gz and tar.zst."""
    return inputs_module.small()


@pytest.fixture
def store_dir() -> Iterator[Path]:
    """A folder for a store on a file system that overlay can stand on; unmounted and removed at the end."""
    with stores.scratch() as folder:
        yield folder


@pytest.fixture
def ordinary_user() -> Iterator[OrdinaryUser]:
    """A user without any rights, with a home, a range of subordinate IDs, and our code where he can read it."""
    with a_user() as user:
        yield user
