"""What `zfs` and `zpool` answer, as the driver relies on it: the same of the scripted ones as of OpenZFS.

`make test-zfs` holds OpenZFS to this table, every run of the tests the script.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerhold.linux import mounts
from tests import stores, zfs

pytestmark = pytest.mark.root

# Each line is a command, and what it answers: "=" and what it prints, or "!" and how what it says begins when it
# fails. Columns are apart by "|", lines by "/". TOP is the dataset of the tests. A line without an answer succeeds.
TABLE = """
zfs create -o mountpoint=legacy TOP/a
zfs create -o mountpoint=legacy -o layerhold:layer=yes TOP/marked
zfs create -o mountpoint=legacy TOP/a                       ! cannot create 'TOP/a': dataset already exists
zfs create -o mountpoint=legacy TOP/none/a                  ! cannot create 'TOP/none/a': parent does not exist
zfs create -o mountpoint=legacy -o quota=abc TOP/q          ! cannot create 'TOP/q': bad numeric value 'abc'
zfs create -o mountpoint=legacy TOP/a%                      ! cannot create 'TOP/a%': invalid character % in name
zfs create -o mountpoint=legacy -o quota=8388608 TOP/q
zfs get -Hp -o value quota TOP/q                            = 8388608
zfs get -Hp -o value quota TOP/a                            = 0
zfs get -Hp -o value quota TOP/none                         ! cannot open 'TOP/none': dataset does not exist
zfs list -Hp -t filesystem -o mountpoint TOP/a              = legacy
zfs list -Hp -t filesystem -o mountpoint TOP/none           ! cannot open 'TOP/none': dataset does not exist
zfs list -Hp -d 1 -t filesystem -o name,mountpoint,layerhold:layer TOP \
    = TOP|legacy|- / TOP/a|legacy|- / TOP/marked|legacy|yes / TOP/q|legacy|-
zfs list -Hp -d 1 -t filesystem -o name,mountpoint,layerhold:layer TOP/none \
    ! cannot open 'TOP/none': dataset does not exist
zfs list -Hp -o quota,compression TOP                       = 0|off
zpool list -H -o health POOL                                = ONLINE
zpool list -H -o health none                                ! cannot open 'none': no such pool

zfs snapshot TOP/a@s1
zfs snapshot TOP/a@s1                                       ! cannot create snapshot 'TOP/a@s1': dataset already exists
zfs snapshot TOP/none@s1                                    ! cannot open 'TOP/none': dataset does not exist
zfs clone -o mountpoint=legacy TOP/a@none TOP/b             ! cannot open 'TOP/a@none': dataset does not exist
zfs clone -o mountpoint=legacy TOP/a@s1 TOP/b
zfs clone -o mountpoint=legacy TOP/a@s1 TOP/b               ! cannot create 'TOP/b': dataset already exists
zfs destroy TOP/a@s1                                        ! cannot destroy 'TOP/a@s1': snapshot has dependent clones
zfs destroy -d TOP/a@s1
zfs destroy -d TOP/a@s1
zfs destroy -d TOP/a@s9                                     ! could not find any snapshots to destroy
zfs destroy -d TOP/none@s1                                  ! cannot open 'TOP/none': dataset does not exist
zfs list -Hp -d 1 -t snapshot -o name,clones TOP/a          = TOP/a@s1|TOP/b
zfs destroy -r TOP/a                                        ! cannot destroy 'TOP/a': filesystem has dependent clones
zfs destroy TOP/a                                           ! cannot destroy 'TOP/a': filesystem has children
zfs destroy -r TOP/none                                     ! cannot open 'TOP/none': dataset does not exist
zfs rename TOP/a TOP/b                                      ! cannot rename 'TOP/a': dataset already exists
zfs rename TOP/none TOP/c                                   ! cannot open 'TOP/none': dataset does not exist
zfs rename TOP/a TOP/c
zfs list -Hp -d 1 -t snapshot -o name,clones TOP/c          = TOP/c@s1|TOP/b
zfs snapshot TOP/c@s2
zfs snapshot TOP/c@s3
zfs clone -o mountpoint=legacy TOP/c@s3 TOP/d
zfs list -Hp -d 1 -t snapshot -o name,clones -S createtxg TOP/c = TOP/c@s3|TOP/d / TOP/c@s2|- / TOP/c@s1|TOP/b
zfs promote TOP/c                                           ! cannot promote 'TOP/c': not a cloned filesystem
zfs snapshot TOP/d@s2
zfs promote TOP/d                                           \
    ! cannot promote 'TOP/d': conflicting snapshot 's2' from parent 'TOP/c@s3'
zfs destroy TOP/d@s2
zfs destroy TOP/c@s2,none
zfs promote TOP/d
zfs list -Hp -d 1 -t snapshot -o name,clones -S createtxg TOP/d = TOP/d@s3|TOP/c / TOP/d@s1|TOP/b
zfs list -Hp -d 1 -t snapshot -o name,clones TOP/c          = (nothing)
zfs destroy -r TOP/c
zfs list -Hp -d 1 -t snapshot -o name,clones -S createtxg TOP/d = TOP/d@s3|- / TOP/d@s1|TOP/b
zfs destroy -r TOP/b
zfs list -Hp -d 1 -t snapshot -o name,clones TOP/d          = TOP/d@s3|-
zfs destroy -r TOP/d
zfs nonsense                                                ! unrecognized command 'nonsense'
zfs list -Hp -d 1 -t filesystem -o name TOP                 = TOP / TOP/marked / TOP/q
"""


@pytest.fixture
def place() -> Iterator[zfs.Zfs]:
    with zfs.place() as found:
        yield found


def test_the_table(place: zfs.Zfs) -> None:
    wrong = []
    for line in filter(None, TABLE.replace("TOP", place.top).replace("POOL", place.top.partition("/")[0]).splitlines()):
        command, failing, words = line.partition(" ! ")
        command, printing, shown = command.partition(" = ")
        done = place.run(*command.split())
        said = " / ".join(row.replace("\t", "|") for row in done.stdout.splitlines()) or "(nothing)"
        if failing:
            fine = done.returncode != 0 and done.stderr.startswith(words.strip())
        else:
            fine = done.returncode == 0 and (not printing or said == shown.strip())
        if not fine:
            wrong.append(f"{line}\n    {done.returncode} {said} {done.stderr[:300]}")
    assert not wrong, "\n".join(wrong)


def test_what_is_mounted_is_not_destroyed(place: zfs.Zfs) -> None:
    """By a file that is open, by another namespace, by a mount that is nowhere; a rename does not mind."""
    name, other = f"{place.top}/busy", f"{place.top}/renamed"
    point = str(place.folder / "point")
    os.mkdir(point)
    assert place.run("zfs", "create", "-o", "mountpoint=legacy", name).returncode == 0
    fd = mounts.detached("zfs", name, ())
    mounts.attach(fd, point)
    os.close(fd)
    Path(point, "file").write_bytes(b"1")
    held = os.open(point, os.O_RDONLY)
    assert place.run("zfs", "rename", name, other).returncode == 0
    done = place.run("zfs", "destroy", "-r", other)
    assert (done.returncode, done.stderr) == (1, f"cannot unmount '{point}': pool or dataset is busy\n")
    os.close(held)
    with zfs.another_namespace():
        done = place.run("zfs", "destroy", "-r", other)
        assert (done.returncode, done.stderr) == (1, f"cannot destroy '{other}': dataset is busy\n")
    assert os.listdir(point) == [], "it was unmounted here"
    os.rmdir(point)  # whatever namespaces there are: none has it mounted any more
    fd = mounts.detached("zfs", other, (), mounts.MS_RDONLY)
    done = place.run("zfs", "destroy", "-r", other)
    assert (done.returncode, done.stderr) == (1, f"cannot destroy '{other}': dataset is busy\n")
    assert os.listdir(f"/proc/self/fd/{fd}/.") == ["file"]
    os.close(fd)
    assert place.run("zfs", "destroy", "-r", other).returncode == 0


def test_a_snapshot_has_what_there_was(place: zfs.Zfs) -> None:
    """Of a dataset that is written to; and a quota is for what is new."""
    name, child = f"{place.top}/parent", f"{place.top}/child"
    assert place.run("zfs", "create", "-o", "mountpoint=legacy", name).returncode == 0
    parent = mounts.detached("zfs", name, ())
    Path(f"/proc/self/fd/{parent}/before").write_bytes(os.urandom(2 << 20))
    assert place.run("zfs", "snapshot", f"{name}@now").returncode == 0
    Path(f"/proc/self/fd/{parent}/after").write_bytes(b"1")
    words = ("-o", "mountpoint=legacy", "-o", f"quota={4 << 20}", f"{name}@now", child)
    assert place.run("zfs", "clone", *words).returncode == 0
    fd = mounts.detached("zfs", child, ())
    try:
        assert os.listdir(f"/proc/self/fd/{fd}/.") == ["before"]
        assert 2 << 20 < stores.full_after(Path(f"/proc/self/fd/{fd}/more")) < 7 << 20
    finally:
        os.close(fd)
        os.close(parent)


def test_what_cannot_be_mounted(place: zfs.Zfs) -> None:
    """What is not there; options that zfs does not know it passes over."""
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.ENOENT))):
        mounts.detached("zfs", f"{place.top}/none", ())
    os.close(mounts.detached("zfs", place.top, ("nonsense", "nonsense=1")))
