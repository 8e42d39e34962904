"""Owners: ranges of user and group IDs, and how they map."""
