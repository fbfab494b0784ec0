"""What waits and how fast it moves, counted once in a while by a maintainer and read by everybody from one row."""

from __future__ import annotations

from datetime import datetime

import msgspec

from jobyard.domain.events import EventType
from jobyard.store.database import Connection
from jobyard.store.statements import statement

HISTORY_SECONDS = 600.0
"""How far back the counts of events go."""


class TypeSample(msgspec.Struct, frozen=True):
    """The jobs of one type in one queue. `oldest`: since when the first of the ready ones has been waiting.
    `suspects`: those ready or active that were in flight when a worker died."""

    tenant: int
    queue: str
    type: str
    ready: int
    scheduled: int
    active: int
    suspects: int
    oldest: datetime | None


class Moved(msgspec.Struct, frozen=True):
    """How many jobs had which event in `seconds` up to `at`. Kinds as in the log: created, started, completed, ..."""

    at: datetime
    seconds: float
    events: dict[str, int]


class Sample(msgspec.Struct, frozen=True):
    """`types` only where there is something; `history` oldest first. `age`: seconds, by the database's clock."""

    at: datetime
    age: float
    event_seq: int
    types: list[TypeSample]
    history: list[Moved]

    def events_within(self, seconds: float) -> Moved:
        """What happened in about the last so many seconds of the history, summed."""
        events = {kind.removeprefix("job."): 0 for kind in EventType}
        covered = 0.0
        for moved in reversed(self.history):
            if covered + moved.seconds > seconds and covered:
                break
            covered += moved.seconds
            for kind, jobs in moved.events.items():
                events[kind] = events.get(kind, 0) + jobs
        return Moved(self.at, covered, events)


_types = msgspec.json.Decoder(list[TypeSample])
_history = msgspec.json.Decoder(list[Moved])


async def last_sample(connection: Connection) -> Sample | None:
    """None until a maintainer has taken the first one."""
    row = await connection.fetchrow(statement("sample_find"))
    if row is None:
        return None
    return Sample(
        row["at"], row["age"], row["event_seq"], _types.decode(row["types"]), _history.decode(row["history"])
    )


async def take_sample(connection: Connection, every_seconds: float) -> bool:
    """Count anew what was last counted `every_seconds` ago or earlier; whether this call did it."""
    before = await last_sample(connection)
    if before is not None and before.age < every_seconds:
        return False
    async with connection.transaction():
        # Reading everything is the point here, so the settings that forbid it to the hot statements are lifted.
        await connection.execute("SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on")
        types = [TypeSample(**row) for row in await connection.fetch(statement("sample_count"))]
        event_seq, history = await _history_since(connection, before)
        return bool(
            await connection.fetchval(
                statement("sample_put"),
                event_seq,
                msgspec.json.encode(types).decode(),
                msgspec.json.encode(history).decode(),
                every_seconds,
            )
        )


async def _history_since(connection: Connection, before: Sample | None) -> tuple[int, list[Moved]]:
    if before is None:
        return await connection.fetchval(statement("sample_last_event")) or 0, []
    rows = await connection.fetch(statement("sample_events"), before.event_seq)
    last = max((row["last"] for row in rows), default=before.event_seq)
    now: datetime = await connection.fetchval("SELECT now()")
    moved = Moved(now, (now - before.at).total_seconds(), {row["kind"]: row["jobs"] for row in rows})
    kept = [old for old in before.history if (now - old.at).total_seconds() < HISTORY_SECONDS]
    return last, [*kept, moved]
