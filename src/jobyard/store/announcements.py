"""What an announcer asks the database: whether it is the one, and which jobs are ready."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from jobyard.domain.announcement import Announcement
from jobyard.store.database import Connection
from jobyard.store.statements import statement

DUTY = "announce"
"""The function jobyard.wake() looks for it by this name."""


async def take_duty(connection: Connection, holder: UUID, seconds: float) -> bool:
    """Whether `holder` is the one that announces, for so long from now on."""
    return await connection.fetchval(statement("duty_take"), DUTY, holder, seconds) is not None


async def leave_duty(connection: Connection, holder: UUID) -> None:
    await connection.execute(statement("duty_leave"), DUTY, holder)


async def lanes_that_hold_work(connection: Connection) -> dict[int, str]:
    """Each with its type."""
    return {row["id"]: row["type"] for row in await connection.fetch(statement("announce_lanes"))}


async def heads(
    connection: Connection, lanes: Sequence[int], behind: Sequence[int], limit: int
) -> dict[int, list[Announcement]]:
    """Up to `limit` ready jobs of each lane, the oldest first, behind the place named for it. Lanes without any are
    missing."""
    found: dict[int, list[Announcement]] = {}
    for row in await connection.fetch(statement("announce_look"), lanes, behind, limit):
        found.setdefault(row["lane"], []).append(Announcement(row["job"], row["lane"], row["seq"]))
    return found
