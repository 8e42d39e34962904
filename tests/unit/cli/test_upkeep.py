"""`check`, `gc`: durations as Go writes them, and the flags of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layerhold.cli.main import main
from layerhold.cli.upkeep import seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("24h", 86400), ("1h30m", 5400), ("-1.5s", -1.5), ("+2ms", 0.002), (".5m", 30), ("1.h", 3600), ("0", 0)],
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid duration"),
        ("h", "invalid duration"),
        ("5", "missing unit in duration"),
        ("1..5h", "missing unit in duration"),
        ("5x", 'unknown unit "x" in duration'),
        ("1h-5m", 'unknown unit "h-" in duration'),
    ],
)
def test_what_is_no_duration(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f'^time: {why} "{text}"$'):
        seconds(text)


@pytest.fixture
def stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that no record knows, in a store that is the current one."""
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", "/dev/null")
    path = tmp_path / "root/vfs/dir/stray"
    path.mkdir(parents=True)
    return path


def run(stray: Path, *words: str) -> int:
    root = stray.parents[2]
    return main(["-g", str(root), "-R", str(root.with_name("run")), "-s", "vfs", *words])


def test_gc_says_what_would_go(stray: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(stray, "gc", "--dry-run") == 0
    assert run(stray, "gc", "--dry-run", "-j") == 0
    plain, as_json = capfdbinary.readouterr().out.splitlines()
    assert plain.decode() == str(stray)
    assert json.loads(as_json) == [str(stray)]
    assert run(stray, "gc") == 0
    assert not stray.exists()


def test_check_says_what_it_removes(stray: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(stray, "check", "--dry-run") == 1
    assert capfdbinary.readouterr().err == b"would remove files stray\n"
    assert stray.exists()
    assert run(stray, "check", "-r") == 0
    assert capfdbinary.readouterr().err == b"removing files stray\n"
    assert not stray.exists()
