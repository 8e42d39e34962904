"""`config`: the JSON, and where settings come from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layerhold.cli import main
from layerhold.settings import sources as settings


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The main file of the only system directory there is."""
    monkeypatch.setattr(settings, "SYSTEM", (str(tmp_path),))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_CONFIG_HOME", f"{tmp_path}/own")
    for name in ("STORAGE_DRIVER", "STORAGE_OPTS", "CONTAINERS_STORAGE_CONF", "CONTAINERS_STORAGE_CONF_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "storage.conf"


def test_only_what_is_set(conf: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    conf.write_text(
        "[storage]\ndriver = 'vfs'\noptions.auto-userns-min-size = 1024\noptions.pull_options = {b='<',a='2'}"
    )
    assert main.main(["config"]) == 0
    shown = json.loads(_out(capfdbinary))
    assert list(shown) == ["runroot", "root", "driver", "auto_userns_min_size", "PullOptions"]
    assert list(shown["PullOptions"]) == ["a", "b"]


def test_no_store_is_opened(conf: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    conf.write_text(f"[storage]\ngraphroot = '{conf.parent}/g'\nrunroot = '{conf.parent}/r'\n")
    assert main.main(["config"]) == 0
    assert json.loads(_out(capfdbinary))["root"] == f"{conf.parent}/g"
    assert not Path(f"{conf.parent}/g").exists()


def test_error(conf: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    conf.write_text("[storage]\ndriver = 5")
    assert main.main(["config"]) == 1
    assert _out(capfdbinary).startswith(f'error initializing: decode configuration "{conf}": toml: line 2 ')


def test_explain(conf: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_DRIVER", "vfs")
    monkeypatch.setenv("STORAGE_OPTS", "a=b")
    monkeypatch.setenv("WHERE", "/somewhere")
    conf.write_text("""\
[storage]
driver = "overlay"
graphroot = "$WHERE/g"
drivr = 1
options.size = "1"
options.imagestore = "/i"
""")
    drop_in = conf.parent / "storage.conf.d/1.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[storage]\ndriver = 'btrfs'\noptions.disable-volatile = true")
    assert main.main(["config", "--explain"]) == 0
    assert (
        _out(capfdbinary).replace(str(conf.parent), "ETC")
        == """\
files, a later one goes before an earlier one:
  ETC/storage.conf
  ETC/storage.conf.d/1.conf
settings:
  storage.graphroot = "/somewhere/g"
    from ETC/storage.conf:3, as "$WHERE/g"
  storage.runroot = "/run/containers/storage"
    from nowhere: the default
  storage.driver = "vfs"
    from STORAGE_DRIVER
    instead of "btrfs" from ETC/storage.conf.d/1.conf:2
    instead of "overlay" from ETC/storage.conf:2
  driver options = ["a=b"]
    from STORAGE_OPTS
  storage.options.disable-volatile = true
    from ETC/storage.conf.d/1.conf:3
  storage.options.imagestore = "/i"
    from ETC/storage.conf:6
  storage.options.size = "1"
    from ETC/storage.conf:5
    without effect: STORAGE_OPTS goes before it
warnings:
  ETC/storage.conf:4: storage.drivr: no such key, it has no effect; is storage.driver meant?
  ETC/storage.conf:6: storage.options.imagestore: it has no effect; is storage.imagestore meant?
"""
    )


def test_explain_another_file(conf: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    conf.write_text("[storage]\ndriver = 'vfs'")
    other = tmp_path / "other"
    other.write_text("[storage]\ndriver = 'nosuch'\n[qqq]\n")
    assert main.main(["config", "--explain", str(other)]) == 0
    shown = _out(capfdbinary)
    assert f'  storage.driver = "nosuch"\n    from {other}:2\n' in shown
    assert f'{other}:2: storage.driver: unknown driver "nosuch"' in shown
    assert f"{other}:3: qqq: no such key, it has no effect\n" in shown
    assert "vfs'" not in shown


def test_explain_nothing(conf: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main.main(["config", "--explain"]) == 0
    shown = _out(capfdbinary)
    assert "(none)" in shown
    assert "warnings" not in shown
    assert str(conf) not in shown


def _out(captured: pytest.CaptureFixture[bytes]) -> str:
    import sys

    sys.stdout.flush()
    return captured.readouterr().out.decode()
