"""A second kernel to test on: Debian's cloud kernel in QEMU, whose root is this machine's own.

No image of a disk is made: the guest reads this machine's root through virtiofs and writes to memory above it, so
programs, interpreters and this checkout are there under their own paths. What it is to do is a shell script in a folder
that both sides write to. QEMU emulates the processor (no KVM): a boot takes three seconds, and everything in the guest
10 to 100 times as long as here, so few processes should be started there.

The kernel comes from Debian like the programs of tests/programs.py, and is only unpacked.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests import programs
from tests.programs import Unavailable

INIT = Path(__file__).parent / "init.sh"
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"  # Debian 12: in qemu-system-common, which qemu-system-x86 brings
# What the guest needs to reach its root, in the names of modules.dep; what is built in has no module.
MODULES = ("virtio_pci", "virtiofs", "overlay")
TRIES = 2  # of a boot: what runs in the guest is not tried again


class Answer(NamedTuple):
    """How the script ended, and what it wrote."""

    status: int
    output: str


def run(
    script: str,
    job: Path,
    *,
    suite: str = "bookworm",
    folder: Path | None = None,
    options: str = "",
    modules: Sequence[str] = (),
    seconds: float = 80,
) -> Answer:
    """Boot, run a shell script as root in the folder `job`, shared with the guest as /run/job, and power off.

    `suite` is the Debian whose kernel it is, unless a `folder` has one; `options` are words for the kernel, `modules`
    are loaded before the script starts. Raises Unavailable where there is no QEMU or no kernel, AssertionError if the
    guest does not come to its end in time.
    """
    _need_qemu()
    folder = folder or kernel(suite)
    (job / "run.sh").write_text(script)
    for name in ("status", "output"):
        (job / name).unlink(missing_ok=True)
    for _ in range(TRIES):
        console = _boot(folder, job, options, (*MODULES, *modules), seconds)
        if (job / "status").exists():
            return Answer(int((job / "status").read_text()), (job / "output").read_text(errors="replace"))
        if (job / "output").exists():
            console += (job / "output").read_text(errors="replace")
            break
    raise AssertionError(f"the guest did not come to its end:\n{console}")


def _need_qemu() -> None:
    if platform.machine() != "x86_64":
        raise Unavailable("the second kernel is for x86_64")
    if os.geteuid():
        raise Unavailable("the second kernel needs root, to share this machine's root with it")
    for program in ("qemu-system-x86_64", VIRTIOFSD):
        if not shutil.which(program):
            raise Unavailable(f"{program} is not installed (Debian 12: apt-get install qemu-system-x86)")


@functools.cache
def kernel(suite: str = "bookworm") -> Path:
    """A folder with Debian's cloud kernel, its modules and a static busybox."""
    return programs.made(programs.PROGRAMS / f"kernel-{suite}", functools.partial(_make_kernel, suite))


def _make_kernel(suite: str, place: Path, _final: Path) -> None:
    programs.download(suite, ("busybox-static",), place, behind="linux-image-cloud-amd64")
    note_needs(place)


def note_needs(folder: Path) -> None:
    """Write down which modules of a folder need which others."""
    programs.run(str(folder / "bin/busybox"), "depmod", "-b", str(folder), version(folder))


def version(folder: Path) -> str:
    """The version of the kernel in a folder."""
    return next(iter(sorted(path.name for path in (folder / "lib/modules").iterdir())))


# -- starting it


def _boot(folder: Path, job: Path, options: str, modules: Sequence[str], seconds: float) -> str:
    """Run the guest until it powers off; give what it wrote on its console."""
    with tempfile.TemporaryDirectory(prefix="vm-") as scratch:
        sockets = {"host": Path(scratch, "host"), "job": Path(scratch, "job")}
        initrd = Path(scratch, "initrd")
        initrd.write_bytes(_archive(_early_files(folder, modules)))
        with _shared(Path("/"), sockets["host"], "auto"), _shared(job, sockets["job"], "none"):
            return _qemu(folder, initrd, sockets, options, seconds)


def _qemu(folder: Path, initrd: Path, sockets: dict[str, Path], options: str, seconds: float) -> str:
    memory = "memory-backend-memfd,id=memory,size=1G,share=on"
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-smp", "2", "-m", "1G", "-object", memory]
    command += ["-M", "pc,memory-backend=memory", "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-display", "none", "-serial", "stdio"]
    command += ["-kernel", str(next(folder.glob("boot/vmlinuz-*"))), "-initrd", str(initrd)]
    command += ["-append", f"console=ttyS0 quiet panic=-1 {options}"]
    for tag, socket in sockets.items():
        command += [
            "-chardev",
            f"socket,id={tag},path={socket}",
            "-device",
            f"vhost-user-fs-pci,chardev={tag},tag={tag}",
        ]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as slow:
        return f"{(slow.stdout or b'').decode(errors='replace')}\nstopped after {seconds} seconds\n"
    return done.stdout.decode(errors="replace")


@contextmanager
def _shared(folder: Path, socket: Path, cache: str) -> Iterator[None]:
    """Serve a folder to the guest."""
    command = [VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={folder},cache={cache},xattr,sandbox=chroot"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if socket.exists() or server.poll() is not None:
                break
            try:
                server.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        if not socket.exists():
            raise Unavailable(f"{VIRTIOFSD} does not start here: it ended with {server.poll()}")
        yield
    finally:
        server.kill()
        server.wait()


# -- the first files that the guest sees


class _File(NamedTuple):
    name: str
    mode: int
    content: bytes = b""


def _early_files(folder: Path, modules: Sequence[str]) -> list[_File]:
    paths = _in_order(folder, modules)
    names = [f"{number:02}-{path.name}" for number, path in enumerate(paths)]
    return [
        _File("init", 0o100755, INIT.read_bytes()),
        _File("bin", 0o40755),
        _File("bin/busybox", 0o100755, (folder / "bin/busybox").read_bytes()),
        _File("kernel", 0o100644, os.fsencode(folder)),
        _File("modules", 0o40755),
        _File("modules/order", 0o100644, "\n".join([*names, ""]).encode()),
        *(_File(f"modules/{name}", 0o100644, path.read_bytes()) for name, path in zip(names, paths, strict=True)),
    ]


def _in_order(folder: Path, modules: Sequence[str]) -> list[Path]:
    """The files of modules, each after those that it needs (modules.dep names the nearest first)."""
    base = folder / "lib/modules" / version(folder)
    needs = {
        path: needed.split()
        for path, _, needed in (line.partition(":") for line in (base / "modules.dep").read_text().splitlines())
    }
    files = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in needs}
    wanted = [files[name] for name in modules if name in files]
    return [base / path for path in dict.fromkeys(path for top in wanted for path in (*reversed(needs[top]), top))]


def _archive(files: Sequence[_File]) -> bytes:
    """A cpio archive in the format that the kernel unpacks ("newc")."""
    parts = []
    for number, file in enumerate([*files, _File("TRAILER!!!", 0)], 1):
        name = file.name.encode() + b"\0"
        fields = (number, file.mode, 0, 0, 1, 0, len(file.content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        parts += [_padded(header), _padded(file.content)]
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
