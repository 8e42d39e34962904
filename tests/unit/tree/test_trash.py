"""Places aside: held while in use, swept when not."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from layerhold.tree.trash import Aside


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "tempdirs"


def numbers(base: Path, prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name in os.listdir(base) if name.startswith(prefix)}


def test_layout_while_open_and_after(base: Path) -> None:
    with Aside(str(base)).open() as temp:
        (number,) = numbers(base, "lock-")
        assert number.isdecimal()
        assert temp.path == str(base / f"temp-dir-{number}")
        assert base.stat().st_mode & 0o777 == Path(temp.path).stat().st_mode & 0o777 == 0o700
        assert (base / f"lock-{number}").stat().st_mode & 0o777 == 0o600
        assert temp.place() == f"{temp.path}/0-addition"
        assert temp.place("diff") == f"{temp.path}/1-diff"
        (Path(temp.path) / "1-diff").mkdir()
    assert os.listdir(base) == []


def test_take(tmp_path: Path, base: Path) -> None:
    (tmp_path / "layer").mkdir(mode=0o555)
    (tmp_path / "layer.tar-split.gz").touch()
    long = "x" * 255
    (tmp_path / long).touch()
    with Aside(str(base)).open() as temp:
        temp.take(str(tmp_path / "layer"))
        temp.take(str(tmp_path / "missing"))
        temp.take(str(tmp_path / "layer.tar-split.gz"))
        temp.take(str(tmp_path / long))
        assert sorted(os.listdir(temp.path)) == ["0-layer", "2-layer.tar-split.gz", f"3-{'x' * 253}"]
    assert sorted(os.listdir(tmp_path)) == ["tempdirs"]


def test_it_goes_when_the_block_fails(base: Path) -> None:
    with pytest.raises(KeyError), Aside(str(base)).open() as temp:  # noqa: PT012 - what came before the error matters
        Path(temp.place()).touch()
        raise KeyError
    assert os.listdir(base) == []


def test_sweep_leaves_what_is_in_use(base: Path) -> None:
    with Aside(str(base)).open() as temp:
        Path(temp.place()).touch()
        Aside(str(base)).sweep()
        assert os.listdir(temp.path) == ["0-addition"]


def test_sweep_leaves_what_the_go_library_holds(base: Path) -> None:
    (base / "temp-dir-77").mkdir(parents=True)
    lock = os.open(base / "lock-77", os.O_RDWR | os.O_CREAT, 0o600)
    ready, release = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        os.write(ready[1], b"!")
        os.close(release[1])
        os.read(release[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    Aside(str(base)).sweep()
    assert sorted(os.listdir(base)) == ["lock-77", "temp-dir-77"]
    for fd in (*ready, *release, lock):
        os.close(fd)
    os.waitpid(child, 0)
    Aside(str(base)).sweep()
    assert os.listdir(base) == []


def test_sweep_after_a_kill_at_any_point(base: Path) -> None:
    base.mkdir()
    (base / "lock-1").touch()
    (base / "temp-dir-2").mkdir()
    (base / "lock-3").touch()
    (base / "temp-dir-3/0-addition").mkdir(parents=True)
    (base / "temp-dir-3/0-addition/f").touch()
    child = os.fork()
    if child == 0:
        with Aside(str(base)).open() as temp:
            Path(temp.place()).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(os.listdir(base)) == 6
    Aside(str(base)).sweep()
    assert os.listdir(base) == []


def test_sweep_touches_nothing_else(tmp_path: Path, base: Path) -> None:
    (tmp_path / "target").touch()
    base.mkdir()
    (base / "lock-1").symlink_to(tmp_path / "target")
    (base / "temp-dir-1").mkdir()
    (base / "lock-2").mkdir()
    (base / "other").touch()
    before = sorted(os.listdir(base))
    Aside(str(base)).sweep()
    assert sorted(os.listdir(base)) == before


def test_sweep_calls_what_unmounts_first(base: Path) -> None:
    (base / "temp-dir-5").mkdir(parents=True)
    seen = []
    Aside(str(base), before_sweep=lambda path: seen.append((path, os.path.isdir(path)))).sweep()
    assert seen == [(str(base / "temp-dir-5"), True)]


def test_sweep_goes_on_after_a_failure_and_says_so(base: Path) -> None:
    for number in (1, 2, 3):
        (base / f"temp-dir-{number}").mkdir(parents=True)

    def fail(path: str) -> None:
        if path.endswith("-2"):
            raise OSError(16, "busy", path)

    with pytest.raises(OSError, match="temp-dir-2"):
        Aside(str(base), before_sweep=fail).sweep()
    assert sorted(os.listdir(base)) == ["lock-2", "temp-dir-2"]


def test_sweep_without_a_base(base: Path) -> None:
    Aside(str(base)).sweep()
    assert not base.exists()
