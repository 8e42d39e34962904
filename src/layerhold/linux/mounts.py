"""Mounting: the classic calls, and the newer ones in which each option is a call of its own."""

from __future__ import annotations

import ctypes
import os
import struct

from layerhold.linux.calls import check, function, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# <linux/mount.h>
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 0x1000
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_SET_FD, _FSCONFIG_CREATE = 0, 1, 5, 6
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_MOVE_FROM_EMPTY_PATH = 4
_OPEN_TREE_CLONE, _AT_EMPTY_PATH = 1, 0x1000
_MOUNT_ATTR_IDMAP = 0x100000
_AT_FDCWD = -100
_OF_FILE_SYSTEMS = {MS_RDONLY: "ro", MS_SYNCHRONOUS: "sync", MS_DIRSYNC: "dirsync"}
_ATTRIBUTES = {MS_NOATIME: 0x10, MS_STRICTATIME: 0x20, MS_NODIRATIME: 0x80}  # MOUNT_ATTR_*

# Words of an option string that are flags of the mount: (the flag, whether the word sets it).
_WORDS = {
    "defaults": (0, True),
    "ro": (MS_RDONLY, True),
    "rw": (MS_RDONLY, False),
    "nosuid": (MS_NOSUID, True),
    "suid": (MS_NOSUID, False),
    "nodev": (MS_NODEV, True),
    "dev": (MS_NODEV, False),
    "noexec": (MS_NOEXEC, True),
    "exec": (MS_NOEXEC, False),
    "sync": (MS_SYNCHRONOUS, True),
    "async": (MS_SYNCHRONOUS, False),
    "dirsync": (MS_DIRSYNC, True),
    "noatime": (MS_NOATIME, True),
    "atime": (MS_NOATIME, False),
    "nodiratime": (MS_NODIRATIME, True),
    "diratime": (MS_NODIRATIME, False),
    "relatime": (MS_RELATIME, True),
    "norelatime": (MS_RELATIME, False),
    "strictatime": (MS_STRICTATIME, True),
    "nostrictatime": (MS_STRICTATIME, False),
}

_CHARS, _INT, _UINT = ctypes.c_char_p, ctypes.c_int, ctypes.c_uint
_mount = function("mount", _CHARS, _CHARS, _CHARS, ctypes.c_ulong, _CHARS)
_umount2 = function("umount2", _CHARS, _INT)

_open_tree = system_call(428, _INT, _CHARS, _UINT)
_move_mount = system_call(429, _INT, _CHARS, _INT, _CHARS, _UINT)
_fsopen = system_call(430, _CHARS, _UINT)
_fsconfig = system_call(431, _INT, _UINT, _CHARS, _CHARS, _INT)
_fsmount = system_call(432, _INT, _UINT, _UINT)
_mount_setattr = system_call(442, _INT, _CHARS, _UINT, ctypes.c_void_p, ctypes.c_size_t)


def apart(options: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """Tell flags of the mount, the last word for each, from the options that the file system itself gets."""
    flags, rest = 0, []
    for option in options:
        flag, sets = _WORDS.get(option, (None, True))
        if flag is not None:
            flags = flags | flag if sets else flags & ~flag
        elif option:
            rest.append(option)
    return flags, tuple(rest)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount the classic way. The kernel cuts `data` of a page or more silently: the caller counts its bytes."""
    words = [os.fsencode(word) for word in (source, target, kind)]
    check(_mount(words[0], words[1], words[2], flags, os.fsencode(data) or None), "mount", target)


def umount(path: str, flags: int = 0) -> None:
    """Unmount what is mounted at `path`."""
    check(_umount2(os.fsencode(path), flags), "umount", path)


def attach(fd: int, target: str) -> None:
    """Mount at `target` what `fd` holds."""
    moved = _move_mount(fd, b"", _AT_FDCWD, os.fsencode(target), _MOVE_FROM_EMPTY_PATH)
    check(moved, "move_mount", target)


def mapped_copy(path: str, user_namespace: int) -> int:
    """Give a descriptor of a mount, not attached yet, that shows `path` with its owners mapped by a user namespace."""
    fd = check(_open_tree(_AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC), "open_tree", path)
    try:
        attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, user_namespace)  # struct mount_attr
        done = _mount_setattr(fd, b"", _AT_EMPTY_PATH, ctypes.create_string_buffer(attributes), len(attributes))
        check(done, "mount_setattr", path)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Configuration:
    """A file system that is being configured, one option a call (fsopen(2)); used as a context manager."""

    def __init__(self, kind: str) -> None:
        self._fd = check(_fsopen(kind.encode(), _FSOPEN_CLOEXEC), "fsopen", kind)

    def __enter__(self) -> Configuration:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._fd)

    def set(self, key: str, value: str | None = None) -> None:
        """Set an option to a text of at most 255 bytes, or set a flag."""
        command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
        text = None if value is None else os.fsencode(value)
        self._said(_fsconfig(self._fd, command, key.encode(), text, 0), f"{key}={value or ''}")

    def set_fd(self, key: str, fd: int) -> None:
        """Set an option to an open directory (Linux 6.13 and newer for overlay's)."""
        self._said(_fsconfig(self._fd, _FSCONFIG_SET_FD, key.encode(), None, fd), key)

    def create(self, about: str) -> None:
        """Make the file system; the options are checked now."""
        self._said(_fsconfig(self._fd, _FSCONFIG_CREATE, None, None, 0), about)

    def mount(self, target: str, flags: int = 0) -> None:
        """Make the file system and mount it at `target`."""
        self.set_words(flags)
        made = self.detached(target, flags)
        try:
            attach(made, target)
        finally:
            os.close(made)

    def set_words(self, flags: int) -> None:
        """Set those of the flags that are options of the whole file system."""
        for flag, word in _OF_FILE_SYSTEMS.items():
            if flags & flag:
                self.set(word)

    def detached(self, about: str, flags: int = 0) -> int:
        """Make the file system; give a descriptor of a mount of it that is nowhere yet, and goes when it is closed.

        The mount has the flags; other mounts of the same file system need not have them.
        """
        self.create(about)
        # The attributes of a mount have the numbers of the MS_ flags up to MS_NOEXEC.
        attributes = flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        for flag, attribute in _ATTRIBUTES.items():
            attributes |= attribute if flags & flag else 0
        return self._said(_fsmount(self._fd, _FSMOUNT_CLOEXEC, attributes), about)

    def _said(self, result: int, about: str) -> int:
        """Check a result; the error has the kernel's own words, which wait behind the descriptor."""
        if result >= 0:
            return result
        number = ctypes.get_errno()
        raise OSError(number, self._words() or os.strerror(number), about)

    def _words(self) -> str:
        said: list[str] = []
        while True:
            try:
                line = os.read(self._fd, 4096)
            except OSError:  # ENODATA: that was all
                return "; ".join(said)
            said.append(line.decode(errors="replace").strip().removeprefix("e "))


def detached(kind: str, source: str, options: Sequence[str], flags: int = 0, *, read_only: bool = False) -> int:
    """Mount a source nowhere: a descriptor of its top. Words of the options that are flags of a mount are such.

    The flags are those of this mount alone; `read_only` is the whole file system. Raises OSError.
    """
    more, words = apart(options)
    with Configuration(kind) as configuration:
        configuration.set("source", source)
        for word in words:
            key, given, value = word.partition("=")
            configuration.set(key, value.strip('"') if given else None)
        configuration.set_words(more | MS_RDONLY if read_only else more & ~MS_RDONLY)
        return configuration.detached(source, more | flags)
