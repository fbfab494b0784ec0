"""Lanes by key, remembered: they are made at first use and never deleted."""

from __future__ import annotations

from jobyard.domain.errors import TooManyLanes
from jobyard.domain.job import MAX_LANES_PER_TENANT, LaneKey
from jobyard.store.database import Connection
from jobyard.store.statements import statement


class Lanes:
    """The ids of lanes. One a process: the cache holds at most the lanes there are."""

    def __init__(self, limit_per_tenant: int = MAX_LANES_PER_TENANT) -> None:
        self._limit = limit_per_tenant
        self._known: dict[LaneKey, int] = {}

    def known(self, key: LaneKey) -> int | None:
        return self._known.get(key)

    async def id_of(self, connection: Connection, key: LaneKey) -> tuple[int, bool]:
        """The lane's id, and whether this call made it (then workers have to be told). Raises TooManyLanes."""
        known = self._known.get(key)
        if known is not None:
            return known, False
        where = (key.tenant, key.queue, key.type, key.priority, key.suspect)
        found = await connection.fetchval(statement("lane_find"), *where)
        made = None
        if found is None:
            made = await connection.fetchval(statement("lane_make"), *where, self._limit)
            # No row: another process made it just now, or the tenant has no lanes left.
            found = made if made is not None else await connection.fetchval(statement("lane_find"), *where)
        if found is None:
            raise TooManyLanes(
                f"this tenant already uses {self._limit} combinations of queue, type and priority; reuse one of them",
                "/queue",
            )
        # A lane made inside a transaction is gone if that rolls back, and a job put into it then would be lost; what is
        # found there may have been made there.
        if not connection.is_in_transaction():
            self._known[key] = found
        return found, made is not None
