"""Reads a database, also one under load, and finds the jobs that break the first promise: each is in exactly one place."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import msgspec

from jobyard.store.database import Connection
from jobyard.store.statements import statement

PAGE_ROWS = 5000
"""Jobs looked at in one statement, so that none holds a snapshot for long."""

LOWEST = UUID(int=0)


class Violation(StrEnum):
    """What can be wrong with where a job is."""

    NOWHERE = "nowhere"
    TWICE = "twice"
    OVER_AND_LIVE = "over_and_live"
    STRAY = "stray"


MEANING = {
    Violation.NOWHERE: "the job stands in no place: it was accepted and is lost",
    Violation.TWICE: "the job stands in two places at once: it can run twice",
    Violation.OVER_AND_LIVE: "a run of the job is over, and it stands in line for that run again",
    Violation.STRAY: "a place is taken by a job that is not there",
}


class Found(msgspec.Struct, frozen=True, rename="camel"):
    """One violation. `places`: the tables that hold the job's rows."""

    violation: Violation
    job: UUID
    places: list[str]


@dataclass(frozen=True, slots=True)
class Page:
    """What one statement looked at, and what was wrong there."""

    examined: int
    found: list[Found]


class _Wrong(msgspec.Struct):
    job: UUID
    places: list[str] | None
    runs: list[int] | None
    over: int | None

    def of_job(self) -> Found:
        match self.places:
            case None:
                return Found(Violation.NOWHERE, self.job, [])
            case [place]:
                return Found(Violation.OVER_AND_LIVE, self.job, [place, "done"])
            case places:
                return Found(Violation.TWICE, self.job, places)

    def of_place(self) -> Found:
        return Found(Violation.STRAY, self.job, self.places or [])


_wrong = msgspec.json.Decoder(list[_Wrong])


async def about_how_many(connection: Connection, what: str) -> int | None:
    """How many jobs or places there are by the statistics, for showing progress; None where nothing is known."""
    tables = ["job"] if what == "jobs" else ["ready", "scheduled", "active", "done"]
    return await connection.fetchval(statement("verify_estimate"), tables) or None


async def jobs(connection: Connection, rows: int = PAGE_ROWS) -> AsyncGenerator[Page]:
    """Every job, a page at a time: is it in exactly one place?"""
    async for examined, wrong in _walk(connection, "verify_jobs", rows):
        yield Page(examined, [it.of_job() for it in wrong])


async def places(connection: Connection, rows: int = PAGE_ROWS) -> AsyncGenerator[Page]:
    """Every place, a page at a time: is there a job that it belongs to?"""
    async for examined, wrong in _walk(connection, "verify_places", rows):
        yield Page(examined, [it.of_place() for it in wrong])


async def _walk(connection: Connection, name: str, rows: int) -> AsyncGenerator[tuple[int, list[_Wrong]]]:
    after: UUID | None = LOWEST
    while after is not None:
        row = await connection.fetchrow(statement(name), after, rows)
        assert row is not None
        yield row["examined"], _wrong.decode(row["wrong"])
        after = row["last"]
