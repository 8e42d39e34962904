"""An overlay mount: computed as a value, then made in the way that its length allows.

The classic mount(2) takes one option string, which the kernel cuts without a word at the page size, and may then mount
the wrong layers. So its bytes are counted, and what does not fit goes the newer way, an option a call, with up to 500
lowers. Where the kernel has no such way (before 6.7; before 6.13 for names of more than 255 bytes), each directory is
named by the number of a descriptor: from a child process whose working directory is /proc/self/fd, since the working
directory belongs to a whole process.
"""

from __future__ import annotations

import errno
import os

from layerhold.errors import DriverError
from layerhold.linux import mounts
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = os.sysconf("SC_PAGESIZE")
MOST_LOWERS = 500  # OVL_MAX_STACK of the kernel
_TOO_OLD = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EBADF, errno.EOPNOTSUPP)


class MountSpec(Value):
    """What to mount where. Paths are absolute; `upper` and `work` are "" for a mount that is only read."""

    target: str
    lowers: tuple[str, ...]
    upper: str = ""
    work: str = ""
    flags: int = 0
    options: tuple[str, ...] = ()


def specify(
    *, target: str, diff: str, work: str, lowers: Sequence[str], empty: str, options: Sequence[str], read_only: bool
) -> MountSpec:
    """Compute the mount of a layer with the directory `diff` over `lowers`, nearest first. Raises DriverError.

    `empty` stands for the lowers of a layer that has none. Words that are mount flags become flags.
    """
    flags, rest = mounts.apart(options)
    if read_only:
        flags |= mounts.MS_RDONLY
    below = tuple(lowers) or (empty,)
    if flags & mounts.MS_RDONLY:
        spec = MountSpec(target=target, lowers=(diff, *below), flags=flags, options=rest)
    else:
        spec = MountSpec(target=target, lowers=below, upper=diff, work=work, flags=flags, options=rest)
    if len(spec.lowers) > MOST_LOWERS:
        count = len(spec.lowers)
        raise DriverError(f"{target}: max depth exceeded: {count} layers, and the kernel stacks {MOST_LOWERS} at most")
    return spec


def mount(spec: MountSpec) -> None:
    """Mount it. Raises DriverError with the kernel's words."""
    data = option_string(spec)
    try:
        if len(os.fsencode(data)) < PAGE:
            mounts.mount("overlay", spec.target, "overlay", spec.flags, data)
        else:
            _mount_long(spec)
    except OSError as error:
        words = _kernels_words(spec) or error.strerror
        raise DriverError(f"creating overlay mount to {spec.target}: {words}") from error


def option_string(spec: MountSpec) -> str:
    """Give the options of a classic mount."""

    def name(path: str) -> str:
        return path.replace("\\", "\\\\").replace(",", "\\,")

    lowers = ":".join(name(lower).replace(":", "\\:") for lower in spec.lowers)
    words = [f"lowerdir={lowers}"]
    if spec.upper:
        words += [f"upperdir={name(spec.upper)}", f"workdir={name(spec.work)}"]
    return ",".join([*words, *spec.options])


def _mount_long(spec: MountSpec) -> None:
    try:
        _mount_by_calls(spec)
    except OSError as error:
        if error.errno not in _TOO_OLD:
            raise
        _mount_by_descriptors(spec)


def _mount_by_calls(spec: MountSpec) -> None:
    with mounts.Configuration("overlay") as configuration:
        _configure(configuration, spec)
        configuration.mount(spec.target, spec.flags)


def _kernels_words(spec: MountSpec) -> str:
    """Give what the kernel has to say against a mount that failed: only the newer way has words for it."""
    try:
        with mounts.Configuration("overlay") as configuration:
            _configure(configuration, spec)
            configuration.create(spec.target)
    except OSError as error:
        return "" if error.errno == errno.ENOSYS else error.strerror or ""
    return ""


def _configure(configuration: mounts.Configuration, spec: MountSpec) -> None:
    configuration.set("source", "overlay")
    for lower in spec.lowers:
        _set_path(configuration, "lowerdir+", lower)
    if spec.upper:
        _set_path(configuration, "upperdir", spec.upper)
        _set_path(configuration, "workdir", spec.work)
    for option in spec.options:
        key, found, value = option.partition("=")
        configuration.set(key, value.strip('"') if found else None)


def _set_path(configuration: mounts.Configuration, key: str, path: str) -> None:
    if len(os.fsencode(path)) <= 255:
        configuration.set(key, path)
        return
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        configuration.set_fd(key, fd)
    finally:
        os.close(fd)


def _mount_by_descriptors(spec: MountSpec) -> None:
    """Mount from a child process, in whose directory of descriptors the names of directories are short."""
    child = os.fork()
    if child == 0:
        status = errno.EIO
        try:
            short = spec.replace(
                lowers=tuple(_descriptor(lower) for lower in spec.lowers),
                upper=_descriptor(spec.upper) if spec.upper else "",
                work=_descriptor(spec.work) if spec.work else "",
            )
            os.chdir("/proc/self/fd")
            data = option_string(short)
            status = errno.E2BIG
            if len(os.fsencode(data)) < PAGE:
                mounts.mount("overlay", spec.target, "overlay", spec.flags, data)
                status = 0
        except OSError as error:
            status = error.errno or errno.EIO
        finally:
            os._exit(status)
    _pid, result = os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(result)
    if number:
        raise OSError(number, os.strerror(number), spec.target)


def _descriptor(path: str) -> str:
    return str(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
