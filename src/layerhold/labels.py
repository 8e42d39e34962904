"""SELinux labels of containers: which a new one gets, how a mount is given one; `tree/relabel.py` gives files theirs.

A label is `user:role:type:level`. All containers have the same user, role and type; the level tells them apart: two
categories, `s0:c12,c345`, that no other container of the store has. A process may touch only what has its own
categories, so the mount of a container's layer gets the same two, and one container cannot reach into another.

Where SELinux is off, all of this does nothing and says nothing: labels that are recorded stay recorded, and mounts do
without. The facts (files, keys, ranges) are those of github.com/opencontainers/selinux.
"""

from __future__ import annotations

import errno
import os

from layerhold.errors import BadLabel
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_CONTEXTS = "/usr/share/containers/selinux/contexts"  # before the policy's own
_ETC = "/etc/selinux"
_CATEGORIES = 1024
# The two last: a container that SELinux does not confine. No other may have them.
_UNCONFINED = f"s0:c{_CATEGORIES - 2},c{_CATEGORIES - 1}"
_KEYS = ("user", "role", "type", "level", "filetype")
_OF_FILES = {"user": "user", "level": "level", "filetype": "type"}
_DRAWS = 1000  # of the half a million pairs; a store has few of them in use


class Labels(Value):
    """The label of a container's processes, and that of its mounts; "" is none."""

    process: str = ""
    mount: str = ""


class _Context(Value):
    """A label, taken apart."""

    user: str
    role: str
    type: str
    level: str = ""

    def __str__(self) -> str:
        return ":".join(part for part in (self.user, self.role, self.type, self.level) if part)


def _context(label: str) -> _Context:
    parts = label.split(":", 3)
    if len(parts) < 3:
        raise BadLabel(label, f'bad label "{label}": a label is user:role:type, and mostly :level')
    return _Context(user=parts[0], role=parts[1], type=parts[2], level="".join(parts[3:]))


# --- mounts


def mount_option(label: str) -> str:
    """Give the option that labels all files of a mount, or "" if there is no label, or where SELinux is off.

    The kernel takes quotes away and does not end the option at a comma between them, such as that of two categories;
    it knows no escapes. Raises BadLabel for a label that would end the quotes, or that the policy does not know: of
    that the kernel says no more than "Invalid argument".
    """
    if not label:
        return ""
    from layerhold.linux import selinux

    if not selinux.enabled():
        return ""
    if '"' in label or not label.isprintable():
        raise BadLabel(label, f"bad label {label!r}: it cannot stand in an option of a mount")
    _refuse_unknown(label)
    return f'context="{label}"'


# --- containers


def for_container(
    flags: Mapping[str, object], options: Sequence[str], *, others: Iterable[Mapping[str, object]]
) -> Labels:
    """Give the labels of a new container: those in the flags that it is to have, or chosen by `options`.

    `others` are the flags of all containers of the store. Raises BadLabel, also for flags with one label of the two.
    """
    given = flag_labels(flags)
    if bool(given.process) != bool(given.mount):
        label = given.process or given.mount
        raise BadLabel(label, "ProcessLabel and Mountlabel must either not be specified or both specified")
    if given.process:
        return given
    used = {label for other in map(flag_labels, others) for label in (other.process, other.mount) if label}
    return container_labels(options, used=used)


def flag_labels(flags: Mapping[str, object]) -> Labels:
    """Give the labels that are recorded in the flags of a container."""
    process, mount = flags.get("ProcessLabel"), flags.get("MountLabel")
    return Labels(process=process if isinstance(process, str) else "", mount=mount if isinstance(mount, str) else "")


def container_labels(options: Sequence[str], *, used: Collection[str]) -> Labels:
    """Choose the labels of a new container; none where SELinux is off.

    `options` are those of Podman's `--security-opt label=`: `disable` (its processes are not confined), or `user:`,
    `role:`, `type:`, `level:`, `filetype:` and a value. `used` are the labels of other containers, whose categories it
    does not get, unless `level:` says so. Raises BadLabel.
    """
    from layerhold.linux import selinux

    if not selinux.enabled():
        return Labels()
    chosen = choose(options, default_labels(), used)
    if options:
        for label in (chosen.process, chosen.mount):
            _refuse_unknown(label)
    return chosen


def shared_file_label() -> str:
    """Give the label of files that all containers may use, or "" if the policy has none, or where SELinux is off.

    Go gives it to each new directory of the driver vfs; what is made in it inherits it.
    """
    return container_labels(["level:s0"], used=()).mount


def choose(options: Sequence[str], defaults: Labels, used: Collection[str]) -> Labels:
    """Choose labels by `options`, from the labels that the policy has for containers. Raises BadLabel."""
    wanted = dict(_option(option) for option in options)
    if "disable" in wanted:
        mount = str(_context(defaults.mount).replace(level=_UNCONFINED)) if defaults.mount else ""
        return Labels(mount=mount)
    if not defaults.process or not defaults.mount:
        return Labels(mount=defaults.mount)
    process, files = _context(defaults.process), _context(defaults.mount)
    if process.level and "level" not in wanted:
        wanted["level"] = fresh_level(used)
    of_process = {key: value for key, value in wanted.items() if key != "filetype"}
    of_files = {_OF_FILES[key]: value for key, value in wanted.items() if key in _OF_FILES}
    return Labels(process=str(process.replace(**of_process)), mount=str(files.replace(**of_files)))


def fresh_level(used: Collection[str]) -> str:
    """Give a level with two categories that none of the labels in `used` has."""
    taken = {_UNCONFINED, *(label.split(":", 3)[3] for label in used if label.count(":") > 2)}
    for _ in range(_DRAWS):
        low, high = sorted(int.from_bytes(os.urandom(4), "little") % _CATEGORIES for _ in range(2))
        level = f"s0:c{low},c{high}"
        if low != high and level not in taken:
            return level
    raise BadLabel("", "no two categories are left for one more container", hint="remove containers")


def _option(option: str) -> tuple[str, str]:
    if option == "disable":
        return option, ""
    key, _, value = option.partition(":")
    ways = f"'disable', or one of {', '.join(_KEYS)} followed by ':' and a value"
    if key not in _KEYS:
        raise BadLabel(option, f'bad label option "{option}": it is to be {ways}')
    more = ":,-" if key == "level" else "-"
    if not value or not all(letter.isascii() and (letter.isalnum() or letter in f"_.{more}") for letter in value):
        raise BadLabel(option, f'bad label option "{option}": "{value}" is no {key} of a label')
    return key, value


def _refuse_unknown(label: str) -> None:
    from layerhold.linux import selinux

    try:
        if label:
            selinux.check_context(label)
    except OSError as error:
        if error.errno == errno.EINVAL:  # any other: this process may not ask
            raise BadLabel(label, f'bad label "{label}": the policy of this machine does not know it') from error


# --- what the policy has for containers


def default_labels() -> Labels:
    """Read what the policy of this machine has for containers; "" where it has nothing."""
    path = _CONTEXTS
    if not os.path.exists(path):
        config = _settings(os.path.join(_ETC, "config"))
        path = os.path.join(_ETC, config.get("SELINUXTYPE", ""), "contexts/lxc_contexts")
    found = _settings(path)
    return Labels(process=found.get("process", ""), mount=found.get("file", ""))


def _settings(path: str) -> dict[str, str]:
    """Read lines of `key = "value"`; a file that is not there has none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError:
        return {}
    pairs = [line.partition("=") for line in lines if line and line[0] not in "#;"]
    return {key.strip(): value.strip().strip('"') for key, found, value in pairs if found}


# --- files


def shared(label: str) -> str:
    """Give the label of files that all containers may use for one of files that one may use: without its categories."""
    context = _context(label)
    return str(context.replace(level="s0")) if context.level else label


def share(directory: str) -> None:
    """Label a new, empty directory for all containers; what is made in it inherits that. Raises OSError."""
    from layerhold.linux import selinux

    if label := shared_file_label():
        selinux.label(directory, label)
