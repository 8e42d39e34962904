"""Directories and files on the host: confined, copied, written at once, thrown away."""
