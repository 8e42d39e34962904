"""Where a user's store and settings are if nothing names a place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerhold.errors import BadConfig
from layerhold.settings import roots


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let this process look like that of an ordinary user, who still owns what it makes."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    lstat = os.lstat

    def own(path: str) -> os.stat_result:
        found = list(lstat(path))
        return os.stat_result([*found[:4], 54321, *found[5:]])

    monkeypatch.setattr(os, "lstat", own)
    return 54321


def test_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    env = {"XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/r"}
    assert roots.graphroot(env) == "/var/lib/containers/storage"
    assert roots.runroot(env) == "/run/containers/storage"


@pytest.mark.usefixtures("user")
def test_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    env = {"HOME": f"{tmp_path}/link", "XDG_RUNTIME_DIR": f"{tmp_path}/link"}
    assert roots.graphroot(env) == f"{tmp_path}/.local/share/containers/storage"
    assert roots.runroot(env) == f"{tmp_path}/containers"
    assert roots.graphroot({**env, "XDG_DATA_HOME": "/d"}) == "/d/containers/storage"


@pytest.mark.usefixtures("user")
def test_runtime_directory_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=f"^lstat {tmp_path}/none: no such file or directory$"):
        roots.runroot({"XDG_RUNTIME_DIR": f"{tmp_path}/none"})


def test_runtime_directory_is_made(user: int, tmp_path: Path) -> None:
    place = tmp_path / f"storage-run-{user}"
    assert roots.runroot({"TMPDIR": str(tmp_path)}) == f"{place}/containers"
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    with pytest.raises(BadConfig, match=r"exists and it is not writeable only by the current user$"):
        roots.runroot({"TMPDIR": str(tmp_path)})


def test_settings() -> None:
    assert roots.settings({"HOME": "/"}) == "/.config/containers"
    assert roots.settings({"HOME": "/", "XDG_CONFIG_HOME": "/c"}) == "/c/containers"


def test_home_without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 5)
    with pytest.raises(BadConfig, match="has no home"):
        roots.home({"HOME": ""})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "/a"),
        ("/$UID/$UIDx/${UID}", "/{uid}/{uid}x/"),
        ("/$A/${A}x$Ax/$A-", "/1/1x/1-"),
        ("/$NO/$$/$1/${}/x", "/////x"),
        ("/$", "/$"),
        ("$/a", "$/a"),
        ("/${A", "/A"),
    ],
)
def test_variables_in_paths(path: str, expected: str) -> None:
    assert roots.expand(path, {"A": "1"}) == expected.replace("{uid}", str(os.geteuid()))


def test_writable(tmp_path: Path) -> None:
    assert roots.writable(f"{tmp_path}/a/b/c")
    assert not roots.writable("/proc/self/x")


def test_root_of_a_user_namespace_is_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    env = {"HOME": "/", "_CONTAINERS_USERNS_CONFIGURED": "done", "_CONTAINERS_ROOTLESS_UID": "1234"}
    assert (roots.user(env), roots.graphroot(env)) == (1234, "/.local/share/containers/storage")
    assert roots.user({**env, "_CONTAINERS_USERNS_CONFIGURED": ""}) == 0
    monkeypatch.setattr(os, "geteuid", lambda: 5)
    assert roots.user(env) == 5
