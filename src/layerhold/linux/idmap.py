"""Which IDs of the machine this process knows; a module without ctypes, since every command asks."""

from __future__ import annotations


def in_user_namespace() -> bool:
    """Tell whether this process is in a user namespace that does not have all IDs, as root on the machine has."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() != [b"0", b"0", b"4294967295"]
    except FileNotFoundError:  # a kernel without user namespaces, or no /proc
        return False
