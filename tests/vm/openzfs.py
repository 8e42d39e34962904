"""A kernel with OpenZFS in it, and the programs that go with it: Debian's, built for Debian's cloud kernel.

OpenZFS is a module outside the kernel, which Debian has as source (`zfs-dkms`): it is compiled once, which takes some
four minutes on two processors, and kept beside the other programs (tests/programs.py). Nothing is installed.
"""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from tests import programs
from tests.vm import machine

SUITE = "bookworm"
_COMPILER = "gcc-12"  # the kernel's own
_PROGRAMS = ("zfs", "zpool", "mount.zfs")
_LIBRARIES = ("libnvpair3linux", "libuutil3linux", "libzfs4linux", "libzpool5linux")


@functools.cache
def kernel() -> Path:
    """A folder as `machine.kernel` gives it, with the module `zfs`; its `sbin` has the programs."""
    return programs.made(programs.PROGRAMS / f"openzfs-{SUITE}", _make)


def _make(place: Path, final: Path) -> None:
    for program in (_COMPILER, "make"):
        if not shutil.which(program):
            raise programs.Unavailable(
                f"{program} is not installed (Debian: apt-get install {_COMPILER} make libc6-dev)"
            )
    programs.download(SUITE, ("busybox-static",), place, behind="linux-image-cloud-amd64")
    version = machine.version(place)
    release = "-".join(version.split("-")[:2])  # 6.1.0-50 of 6.1.0-50-cloud-amd64
    headers = (f"linux-headers-{version}", f"linux-headers-{release}-common")
    tools = ("linux-kbuild-" + ".".join(release.split(".")[:2]), "linux-compiler-gcc-12-x86")
    build = place / "build"
    build.mkdir()
    programs.download(SUITE, (*headers, *tools, "zfs-dkms"), build, components="main contrib")
    programs.download(SUITE, ("zfsutils-linux", *_LIBRARIES), build, components="main contrib")
    _compile(build / "usr/src", *headers)
    modules = place / "lib/modules" / version / "extra"
    modules.mkdir()
    for module in build.glob("usr/src/zfs-*/module/**/*.ko"):
        shutil.copy(module, modules)
    programs.run("strip", "--strip-debug", *map(str, modules.glob("*.ko")))
    machine.note_needs(place)
    libraries = next(build.glob("lib/*/libzfs.so.*")).parent
    shutil.copytree(libraries, place / "lib/zfs", symlinks=True)
    (place / "sbin").mkdir()
    for name in _PROGRAMS:
        shutil.copy(build / "sbin" / name, place / "sbin")
    files = [*(place / "sbin").iterdir(), *(path for path in (place / "lib/zfs").iterdir() if not path.is_symlink())]
    for path in files:
        programs.run(programs.patchelf(), "--set-rpath", str(final / "lib/zfs"), str(path))
    shutil.rmtree(build)


def _compile(sources: Path, ours: str, common: str) -> None:
    """Compile the modules against headers that lie elsewhere than where they are to be installed."""
    makefile = sources / ours / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{sources}/"))
    zfs = next(sources.glob("zfs-*"))
    where = (f"--with-linux={sources / common}", f"--with-linux-obj={sources / ours}")
    programs.run("./configure", "--with-config=kernel", *where, cwd=zfs)
    programs.run("make", f"-j{os.cpu_count() or 1}", cwd=zfs)
