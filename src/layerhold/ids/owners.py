"""What the owners of a layer's files become for other maps.

An owner on the host becomes an owner in the container by the old maps, and that one an owner on the host by the new
maps.
"""

from __future__ import annotations

from layerhold.errors import StorageError
from layerhold.ids.mappings import IdMappings, container_id, host_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os


class Owners:
    """New owners for old ones. None: maps that change nothing. An ID that a map does not cover becomes `overflow`."""

    def __init__(self, old: IdMappings | None, new: IdMappings | None, overflow: int | None = None) -> None:
        self._old = old or IdMappings()
        self._new = new or IdMappings()
        self._overflow = overflow
        self._known: dict[tuple[int, int], tuple[int, int]] = {}
        self.same = self._old.identity and self._new.identity

    def of(self, info: os.stat_result, path: str) -> tuple[int, int]:
        """Give the new owner of the file `path`. Raises StorageError, which names it, for one that has none."""
        owner = info.st_uid, info.st_gid
        found = self._known.get(owner)
        if found is None:
            try:
                found = self._known[owner] = self._mapped(*owner)
            except StorageError as error:
                raise StorageError(f'"{path}": {error}') from error
        return found

    def _mapped(self, uid: int, gid: int) -> tuple[int, int]:
        ids = []
        for id, old, new in ((uid, self._old.uids, self._new.uids), (gid, self._old.gids, self._new.gids)):
            try:
                ids.append(host_id(new, container_id(old, id)))
            except StorageError:
                if self._overflow is None:
                    raise
                ids.append(self._overflow)
        return ids[0], ids[1]
