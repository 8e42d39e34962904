"""An overlay mount: computed as a value, then made in the way that its length allows.

The classic mount(2) takes one option string, which the kernel cuts without a word at the page size, and may then mount
the wrong layers. So its bytes are counted, and what does not fit goes the newer way, an option a call, with up to 500
lowers. Where the kernel has no such way (before 6.7), names are shortened: relative to the driver's home, from a child
process, since the working directory belongs to a whole process.
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
_TOO_OLD = (errno.EINVAL, errno.ENOSYS, errno.EPERM)
_FLAGS = {
    "ro": mounts.MS_RDONLY,
    "rw": 0,
    "nosuid": mounts.MS_NOSUID,
    "nodev": mounts.MS_NODEV,
    "noexec": mounts.MS_NOEXEC,
}


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
    flags = mounts.MS_RDONLY if read_only else 0
    rest = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option:
            rest.append(option)
    below = tuple(lowers) or (empty,)
    if flags & mounts.MS_RDONLY:
        spec = MountSpec(target=target, lowers=(diff, *below), flags=flags, options=tuple(rest))
    else:
        spec = MountSpec(target=target, lowers=below, upper=diff, work=work, flags=flags, options=tuple(rest))
    if len(spec.lowers) > MOST_LOWERS:
        raise DriverError(f"{target}: {len(spec.lowers)} layers, and the kernel stacks {MOST_LOWERS} at most")
    return spec


def mount(spec: MountSpec, home: str) -> None:
    """Mount it. Raises DriverError with the kernel's words."""
    data = option_string(spec)
    try:
        if len(os.fsencode(data)) < PAGE:
            mounts.mount("overlay", spec.target, "overlay", spec.flags, data)
        else:
            _mount_long(spec, home)
    except OSError as error:
        raise DriverError(f"creating overlay mount to {spec.target}: {error.strerror}") from error


def option_string(spec: MountSpec, relative_to: str = "") -> str:
    """Give the options of a classic mount."""

    def name(path: str) -> str:
        short = os.path.relpath(path, relative_to) if relative_to else path
        return short.replace("\\", "\\\\").replace(",", "\\,")

    lowers = ":".join(name(lower).replace(":", "\\:") for lower in spec.lowers)
    words = [f"lowerdir={lowers}"]
    if spec.upper:
        words += [f"upperdir={name(spec.upper)}", f"workdir={name(spec.work)}"]
    return ",".join([*words, *spec.options])


def _mount_long(spec: MountSpec, home: str) -> None:
    try:
        _mount_by_calls(spec)
    except OSError as error:
        if error.errno not in _TOO_OLD:
            raise
        data = option_string(spec, home)
        if len(os.fsencode(data)) >= PAGE:
            raise
        _mount_from(home, spec, data)


def _mount_by_calls(spec: MountSpec) -> None:
    with mounts.Configuration("overlay") as configuration:
        configuration.set("source", "overlay")
        for lower in spec.lowers:
            _set_path(configuration, "lowerdir+", lower)
        if spec.upper:
            _set_path(configuration, "upperdir", spec.upper)
            _set_path(configuration, "workdir", spec.work)
        for option in spec.options:
            key, found, value = option.partition("=")
            configuration.set(key, value.strip('"') if found else None)
        configuration.mount(spec.target, spec.flags)


def _set_path(configuration: mounts.Configuration, key: str, path: str) -> None:
    if len(os.fsencode(path)) <= 255:
        configuration.set(key, path)
        return
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        configuration.set_fd(key, fd)
    finally:
        os.close(fd)


def _mount_from(home: str, spec: MountSpec, data: str) -> None:
    """Mount from a child process whose working directory is `home`."""
    child = os.fork()
    if child == 0:
        status = errno.EIO
        try:
            os.chdir(home)
            mounts.mount("overlay", os.path.relpath(spec.target, home), "overlay", spec.flags, data)
            status = 0
        except OSError as error:
            status = error.errno or errno.EIO
        finally:
            os._exit(status)
    _pid, result = os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(result)
    if number:
        raise OSError(number, os.strerror(number), spec.target)
