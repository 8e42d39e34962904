from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from layerhold.errors import NoSubIds
from layerhold.ids import rootless


def files(folder: Path, uids: str, gids: str) -> tuple[str, str]:
    (folder / "subuid").write_text(uids)
    (folder / "subgid").write_text(gids)
    return str(folder / "subuid"), str(folder / "subgid")


def test_the_user_is_root_and_his_ranges_follow(tmp_path: Path) -> None:
    user = pwd.getpwuid(os.getuid())
    places = files(tmp_path, f"{user.pw_name}:100000:10\n{user.pw_name}:5000:3\n", f"{user.pw_name}:200000:7\n")
    found = rootless.mappings_of(user.pw_uid, 77, files=places)
    assert list(map(str, found.uids)) == [f"0:{user.pw_uid}:1", "1:5000:3", "4:100000:10"]
    assert list(map(str, found.gids)) == ["0:77:1", "1:200000:7"]


def test_no_ranges_and_no_name_are_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(NoSubIds, match="no subuid ranges found"):
        rootless.mappings_of(os.getuid(), 0, files=files(tmp_path, "somebody-else:1:1\n", ""))
    with pytest.raises(NoSubIds, match="has no name"):
        rootless.mappings_of(2**31 - 7, 0)


def test_without_the_programs_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = os.readlink("/proc/self/ns/user")
    with pytest.raises(FileNotFoundError, match="finding newuidmap"):
        rootless.become_root(rootless.alone(os.getuid(), os.getgid()))
    assert os.readlink("/proc/self/ns/user") == before


def test_a_map_that_is_refused_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("newuidmap", "newgidmap"):
        (tmp_path / program).write_text("#!/bin/sh\necho not yours >&2\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = os.readlink("/proc/self/ns/user")
    with pytest.raises(PermissionError, match="newuidmap: not yours"):
        rootless.become_root(rootless.alone(os.getuid(), os.getgid()))
    assert os.readlink("/proc/self/ns/user") == before
