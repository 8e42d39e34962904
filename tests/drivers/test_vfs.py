"""What only the vfs driver does: any user can have it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from layerhold.drivers.base import ERASE, MountOptions
from layerhold.errors import BadConfig, DriverError
from tests.drivers.conftest import Bench
from tests.users import OrdinaryUser


def test_layout(vfs: Bench) -> None:
    vfs.new("base", tree={"file": b"1"})
    home = vfs.graphroot / "vfs"
    assert (home / "dir/base/file").read_bytes() == b"1"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (home, home / "dir")} == {0o700}


def test_contents_are_whole_always(vfs: Bench) -> None:
    vfs.new("base", tree={"file": b"1"})
    vfs.new("child", "base", {"more": b"2"})
    for against in (None, "base"):
        with vfs.driver.contents("child", against=against) as contents:
            assert (contents.deletions, contents.lowers) == (ERASE, None)
            assert sorted(os.listdir(contents.path)) == ["file", "more"]


def test_mount_options(vfs: Bench) -> None:
    vfs.new("base")
    assert vfs.driver.mount("base", MountOptions(options=("ro",))) == f"{vfs.driver.home}/dir/base"
    with pytest.raises(DriverError, match="vfs driver does not support mount options"):
        vfs.driver.mount("base", MountOptions(options=("nodev",)))


def test_options(vfs: Bench) -> None:
    assert vfs.open(["vfs.ignore_chown_errors=true", "overlay.mountopt=nodev"]).squash
    with pytest.raises(DriverError, match="vfs driver does not support mount options"):
        vfs.open(["vfs.mountopt=nodev"])
    with pytest.raises(BadConfig, match=r'unknown option "nonsense" \("nonsense=1"\)'):
        vfs.open(["nonsense=1"])


WORK = """
import os, sys
from layerhold.drivers.base import LayerSpec
from layerhold.drivers.choose import Place, open_driver
top = sys.argv[1]
driver = open_driver(None, Place(graphroot=top + "/graph", runroot=top + "/run"), options=(), priority=())
assert driver.name == "vfs", driver.name

def publish(build):
    build.sync()
    build.publish()

with driver.building("base", None, LayerSpec()) as build:
    os.chmod(build.contents.path, 0o755)
    for name, mode in (("secret", 0o000), ("plain", 0o644)):
        with open(os.path.join(build.contents.path, name), "w") as file:
            file.write(name)
        os.chmod(os.path.join(build.contents.path, name), mode)
    os.mkdir(os.path.join(build.contents.path, "closed"))
    os.mkdir(os.path.join(build.contents.path, "closed/inner"))
    os.symlink("nowhere", os.path.join(build.contents.path, "closed/link"))
    os.chmod(os.path.join(build.contents.path, "closed/inner"), 0o000)
    os.chmod(os.path.join(build.contents.path, "closed"), 0o555)
    os.chmod(build.contents.path, 0o555)
    publish(build)
for id, parent in (("child", "base"), ("grandchild", "child")):
    with driver.building(id, parent, LayerSpec()) as build:
        publish(build)
with driver.rebuilding("child") as build:
    publish(build)
with driver.trash() as trash:
    driver.remove("child", trash)
driver.sweep()
print(sorted(driver.ids()), os.listdir(driver.home + "/tempdirs"))
"""


@pytest.mark.root
def test_an_ordinary_user_keeps_modes_that_shut_him_out(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.as_user([ordinary_user.python, "-c", WORK, str(ordinary_user.home)])
    assert done.stdout == "['base', 'grandchild'] []\n"
    for id in ("base", "grandchild"):
        top = Path(ordinary_user.home) / "graph/vfs/dir" / id
        rows = {
            str(path.relative_to(top)): (stat.S_IMODE(path.lstat().st_mode), path.lstat().st_uid)
            for path in (top, *top.rglob("*"))
        }
        user = ordinary_user.uid
        assert rows == {
            ".": (0o555, user),
            "plain": (0o644, user),
            "secret": (0, user),
            "closed": (0o555, user),
            "closed/inner": (0, user),
            "closed/link": (0o777, user),
        }
        assert (top / "secret").read_text() == "secret"
