"""What overlay can do on this machine, found out by trying, and remembered in files that the Go library reads, too.

    <run home>/<feature>-true, <feature>-false      empty, or the reason

They are in the run root, since the answer may change with the kernel. The experiments are made in a place aside below
the home, so on the file system that matters, and are unmounted and removed, by the next sweep at the latest.
"""

from __future__ import annotations

import errno
import os

from layerhold.blocks import contextmanager
from layerhold.errors import DriverNotSupported
from layerhold.tree.files import make_dirs, write_atomic
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from layerhold.drivers.overlay_home import Attributes
    from layerhold.tree.trash import Aside


_ELSEWHERE = "use the driver vfs, or a graph root on ext4, xfs, btrfs or tmpfs"


class Answers(Value):
    """What was found out."""

    native_diff: bool
    metacopy: bool


class Probe:
    """The experiments for one home, with the mount options and the attributes that its layers will have."""

    def __init__(self, aside: Aside, run_home: str, options: Sequence[str], attributes: Attributes) -> None:
        self._aside = aside
        self._run_home = run_home
        self._options = options
        self._attributes = attributes

    def answers(self) -> Answers:
        """Look up, or find out, everything. Raises DriverNotSupported if overlay does not work here at all."""
        make_dirs(self._run_home)
        self._remembered("overlay", self._works)
        suffix = f"({','.join(self._options)})"
        return Answers(
            native_diff=self._remembered(f"native-diff{suffix}", self._has_native_diff),
            metacopy=self._remembered(f"metacopy{suffix}", self._has_metacopy),
        )

    def volatile(self) -> bool:
        """Tell whether mounts may be volatile: not synced, and lost with a crash of the machine."""
        return self._remembered("volatile", self._has_volatile)

    def mapped_lowers(self) -> bool:
        """Tell whether lower layers may be mounted with their owners mapped."""
        return self._remembered("idmapped-lower-dir", self._has_mapped_lowers)

    def _remembered(self, feature: str, find_out: Callable[[], str | None]) -> bool:
        """Answer from the files, or by the experiment, which gives the reason for a no ("" for none), or None."""
        path = os.path.join(self._run_home, feature)
        if os.path.exists(f"{path}-true"):
            return True
        if os.path.exists(f"{path}-false"):
            if feature == "overlay":
                with open(f"{path}-false") as file:
                    raise DriverNotSupported(file.read(), hint=_ELSEWHERE)
            return False
        reason = find_out()
        write_atomic(f"{path}-{'true' if reason is None else 'false'}", (reason or "").encode(), mode=0o644, sync=False)
        if feature == "overlay" and reason is not None:
            raise DriverNotSupported(reason, hint=_ELSEWHERE)
        return reason is None

    def _works(self) -> str | None:
        with self._laboratory("compat") as top:
            for name in ("lower1", "lower2", "upper", "work", "merged"):
                os.mkdir(f"{top}/{name}")
            os.mkdir(f"{top}/lower1/directory")
            mark = f"{self._attributes.prefix}opaque"
            try:
                os.setxattr(f"{top}/upper", mark, b"y")
                os.removexattr(f"{top}/upper", mark)
            except OSError as error:
                return f"the file system takes no attributes such as {mark}: {error.strerror}"
            try:
                with self._mounted(top, ["lower1", "lower2"]) as merged:
                    os.rmdir(f"{merged}/directory")
                    os.mknod(f"{top}/upper/whiteout", 0o020000, 0)
            except OSError as error:
                return f"kernel does not support overlay fs: {error.strerror}"
        return None

    def _has_native_diff(self) -> str | None:
        """See whether what is changed in a merged tree shows in the upper as it is, without redirections."""
        with self._laboratory("opaque-bug-check") as top:
            for name in ("lower1/d", "lower1/d1", "lower2/d", "upper", "work", "merged"):
                os.makedirs(f"{top}/{name}")
            opaque, redirect = (self._attributes.prefix + name for name in ("opaque", "redirect"))
            os.setxattr(f"{top}/lower2/d", opaque, b"y")
            try:
                with self._mounted(top, ["lower2", "lower1"]) as merged:
                    with open(f"{merged}/d/f", "w"):
                        pass
                    if _xattr(f"{top}/upper/d", opaque) == b"y":
                        return "the kernel copies up the opaque flag"
                    os.rename(f"{merged}/d1", f"{merged}/d2")
                    if _xattr(f"{top}/upper/d2", redirect) == b"d1":
                        return "the kernel redirects renamed directories"
            except OSError as error:
                if error.errno == errno.EINVAL:  # an option that a user namespace may not use, such as metacopy=on
                    return error.strerror or "refused"
                if error.errno != errno.EXDEV:
                    raise
        return None

    def _has_metacopy(self) -> str | None:
        with self._laboratory("metacopy-check") as top:
            for name in ("lower1", "upper", "work", "merged"):
                os.mkdir(f"{top}/{name}")
            with open(f"{top}/lower1/f", "w") as file:
                file.write("f")
            try:
                with self._mounted(top, ["lower1"]) as merged:
                    os.chmod(f"{merged}/f", 0o600)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise
                return error.strerror or "refused"
            return None if _xattr(f"{top}/upper/f", self._attributes.prefix + "metacopy") is not None else ""

    def _has_volatile(self) -> str | None:
        with self._laboratory("volatile-check") as top:
            for name in ("lower1", "upper", "work", "merged"):
                os.mkdir(f"{top}/{name}")
            try:
                with self._mounted(top, ["lower1"], "volatile"):
                    return None
            except OSError as error:
                return error.strerror or "refused"

    def _has_mapped_lowers(self) -> str | None:
        from layerhold.linux import mounts
        from layerhold.linux.namespaces import user_namespace

        with self._laboratory("mapped-check") as top:
            for name in ("lower", "lower1", "upper", "work", "merged"):
                os.mkdir(f"{top}/{name}")
            try:
                namespace = user_namespace("0 100000 1", "0 100000 1")
                try:
                    copy = mounts.mapped_copy(f"{top}/lower", namespace)
                finally:
                    os.close(namespace)
                try:
                    mounts.attach(copy, f"{top}/lower1")
                finally:
                    os.close(copy)
                try:
                    with self._mounted(top, ["lower1"]):
                        return None
                finally:
                    mounts.umount(f"{top}/lower1", mounts.MNT_DETACH)
            except OSError as error:
                return error.strerror or "refused"

    @contextmanager
    def _laboratory(self, name: str) -> Iterator[str]:
        with self._aside.open() as temporary:
            top = temporary.place(name)
            os.mkdir(top, 0o700)
            yield top

    @contextmanager
    def _mounted(self, top: str, lowers: Sequence[str], *more: str) -> Iterator[str]:
        from layerhold.drivers.overlay_mount import option_string, specify
        from layerhold.linux import mounts

        spec = specify(
            target=f"{top}/merged",
            diff=f"{top}/upper",
            work=f"{top}/work",
            lowers=[f"{top}/{lower}" for lower in lowers],
            empty="",
            options=[*self._options, *self._attributes.options, *more],
            read_only=False,
        )
        mounts.mount("overlay", spec.target, "overlay", spec.flags, option_string(spec))
        try:
            yield spec.target
        finally:
            mounts.umount(spec.target)


def _xattr(path: str, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
