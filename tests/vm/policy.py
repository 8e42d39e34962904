"""A small SELinux policy: it knows the types of containers, two users and 1024 categories, and forbids nothing.

Debian's own policy lacks those types. The language is CIL, which `secilc` compiles.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests import programs

CATEGORIES = 1024
USERS = ("system_u", "unconfined_u")
TYPES = ("kernel_t", "unlabeled_t", "file_t", "container_t", "container_file_t", "spc_t")
# What lxc_contexts says on a machine with this policy.
PROCESS, FILES = "system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"

# Labels that the kernel begins with, in the order of its own list (security/selinux/include/initial_sid_to_string.h).
_INITIAL = (
    *("kernel", "security", "unlabeled", "fs", "file", "file_labels", "init", "any_socket", "port", "netif", "netmsg"),
    *("node", "igmp_packet", "icmp_socket", "tcp_socket", "sysctl_modprobe", "sysctl", "sysctl_fs", "sysctl_kernel"),
    *("sysctl_net", "sysctl_net_unix", "sysctl_vm", "sysctl_dev", "kmod", "policy", "scmp_packet", "devnull"),
)
_ON_FILES = (
    "ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link rename execute swapon "
    "quotaon mounton audit_access open execmod watch watch_mount watch_sb watch_with_perm watch_reads"
)
_OF_FILES = {
    "file": "execute_no_trans entrypoint",
    "dir": "add_name remove_name reparent search rmdir",
    "lnk_file": "",
    "chr_file": "execute_no_trans entrypoint",
}
_OTHER_CLASSES = {
    "process": "fork transition sigchld dyntransition setexec setfscreate",
    "filesystem": "mount remount unmount getattr relabelfrom relabelto associate quotamod quotaget watch",
    "security": "compute_av compute_create compute_member check_context load_policy compute_relabel compute_user "
    "setenforce setbool setsecparam setcheckreqprot read_policy validate_trans",
}
_WITH_ATTRIBUTES = ("ext2", "ext3", "ext4", "xfs", "btrfs", "overlay")
_BY_CREATOR = ("tmpfs", "devpts", "devtmpfs", "shm")
_ALL_ALIKE = ("proc", "sysfs", "selinuxfs", "fuse", "virtiofs", "rootfs", "securityfs", "cgroup", "cgroup2")


def text() -> str:
    """The policy in CIL."""
    return "\n".join([*_classes(), *_levels(), *_users_and_types(), *_initial_labels(), *_file_systems(), ""])


def compile_to(path: Path) -> None:
    """Compile the policy. Raises Unavailable where there is no secilc."""
    if not shutil.which("secilc"):
        raise programs.Unavailable("secilc is not installed (Debian: apt-get install secilc)")
    source = path.with_suffix(".cil")
    source.write_text(text())
    programs.run("secilc", "-o", str(path), "-f", "/dev/null", str(source))


def _classes() -> list[str]:
    found = ["(handleunknown allow)", "(mls true)", f"(common on_files ({_ON_FILES}))"]
    for name, more in _OF_FILES.items():
        found += [f"(class {name} ({more}))", f"(classcommon {name} on_files)"]
    found += [f"(class {name} ({permissions}))" for name, permissions in _OTHER_CLASSES.items()]
    return [*found, f"(classorder ({' '.join([*_OTHER_CLASSES, *_OF_FILES])}))"]


def _levels() -> list[str]:
    names = [f"c{number}" for number in range(CATEGORIES)]
    every = f"(range {names[0]} {names[-1]})"
    return [
        "(sensitivity s0)",
        "(sensitivityorder (s0))",
        *(f"(category {name})" for name in names),
        f"(categoryorder ({' '.join(names)}))",
        f"(sensitivitycategory s0 {every})",
        "(level lowest (s0))",
        f"(level highest (s0 ({every})))",
        "(levelrange every_level (lowest highest))",
    ]


def _users_and_types() -> list[str]:
    roles = ("object_r", "system_r")
    found = [f"(role {role})" for role in roles]
    for user in USERS:
        found += [f"(user {user})", *(f"(userrole {user} {role})" for role in roles)]
        found += [f"(userlevel {user} lowest)", f"(userrange {user} every_level)"]
    for kind in TYPES:
        found += [f"(type {kind})", *(f"(roletype {role} {kind})" for role in roles), f"(typepermissive {kind})"]
    every = f"(typeattributeset every_type ({' '.join(TYPES)}))"
    return [
        *found,
        "(typeattribute every_type)",
        every,
        "(allow every_type every_type (filesystem (mount remount unmount getattr relabelfrom relabelto associate)))",
    ]


def _initial_labels() -> list[str]:
    contexts = {"kernel": "system_r kernel_t", "init": "system_r kernel_t", "unlabeled": "object_r unlabeled_t"}
    labels = {name: f"(system_u {contexts.get(name, 'object_r file_t')} (lowest lowest))" for name in _INITIAL}
    return [
        *(f"(sid {name})" for name in _INITIAL),
        f"(sidorder ({' '.join(_INITIAL)}))",
        *(f"(sidcontext {name} {label})" for name, label in labels.items()),
    ]


def _file_systems() -> list[str]:
    label = "(system_u object_r file_t (lowest lowest))"
    return [
        *(f"(fsuse xattr {name} {label})" for name in _WITH_ATTRIBUTES),
        *(f"(fsuse trans {name} {label})" for name in _BY_CREATOR),
        *(f'(genfscon {name} "/" {label})' for name in _ALL_ALIKE),
    ]
