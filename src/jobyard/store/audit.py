"""Reads a database, also one under load, and finds what breaks the promises: where jobs are, and how their runs ended.

What the log tells of attempts beside that is in `audit_log`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import asyncpg
import msgspec

from jobyard.store.database import Connection
from jobyard.store.statements import statement

PAGE_ROWS = 5000
"""Jobs looked at in one statement, so that none holds a snapshot for long."""

LOWEST = UUID(int=0)


class Violation(StrEnum):
    """Which promise is broken."""

    NOWHERE = "nowhere"
    TWICE = "twice"
    OVER_AND_LIVE = "over_and_live"
    STRAY = "stray"
    REOPENED = "reopened"
    TWO_OUTCOMES = "two_outcomes"
    TWO_OWNERS = "two_owners"
    FOREIGN_OUTCOME = "foreign_outcome"
    FINAL_CHANGED = "final_changed"
    ATTEMPT_LOST = "attempt_lost"


MEANING = {
    Violation.NOWHERE: "the job stands in no place: it was accepted and is lost",
    Violation.TWICE: "the job stands in two places at once: it can run twice",
    Violation.OVER_AND_LIVE: "a run of the job is over, and it stands in line for that run again",
    Violation.STRAY: "a place is taken by a job that is not there",
    Violation.REOPENED: "the job was completed, and began another run",
    Violation.TWO_OUTCOMES: "an attempt ended twice, or went on after its run was over",
    Violation.TWO_OWNERS: "one lease was given out twice: the job ran twice under it",
    Violation.FOREIGN_OUTCOME: "an outcome by somebody who did not hold the lease",
    Violation.FINAL_CHANGED: "how an attempt ended was changed afterwards: the log tells another end than the record",
    Violation.ATTEMPT_LOST: "an attempt began that neither runs nor has an end on record",
}


class Found(msgspec.Struct, frozen=True, rename="camel"):
    """One violation, with the run and the lease it is about where there is one. `evidence`: what contradicts what."""

    violation: Violation
    job: UUID
    evidence: str
    run: int | None = None
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What one statement looked at, and what was wrong there."""

    examined: int
    found: list[Found]


class _WrongJob(msgspec.Struct):
    job: UUID
    places: list[str] | None
    runs: list[int] | None
    over: int | None
    lost: int | None
    reopened: int | None
    twice: int | None
    lease: int | None

    def found(self) -> Iterator[Found]:
        places, runs = self.places or [], self.runs or []
        if not places and self.over is None:
            yield Found(Violation.NOWHERE, self.job, "in none of ready, scheduled, active and done")
        if self.lost is not None:
            yield Found(
                Violation.NOWHERE,
                self.job,
                f"run {self.lost} was tried again, and the run after it is nowhere",
                self.lost + 1,
            )
        if len(places) > 1:
            yield Found(Violation.TWICE, self.job, f"in {' and '.join(places)}", runs[0])
        elif self.over is not None and any(run <= self.over for run in runs):
            yield Found(Violation.OVER_AND_LIVE, self.job, f"in {places[0]} and done", runs[0])
        if self.reopened is not None:
            yield Found(
                Violation.REOPENED, self.job, f"run {self.reopened} is completed, not the last", self.reopened
            )
        if self.twice is not None:
            yield Found(
                Violation.TWO_OUTCOMES, self.job, "the record has another end", self.twice, self.lease
            )


class _Stray(msgspec.Struct):
    job: UUID
    place: str
    run: int


_wrong_jobs = msgspec.json.Decoder(list[_WrongJob])
_strays = msgspec.json.Decoder(list[_Stray])


async def about_how_many(connection: Connection, what: str) -> int | None:
    """How many of them there are by the statistics, for showing progress; None where nothing is known."""
    tables = {"jobs": ["job"], "events": ["event"]}.get(what, ["ready", "scheduled", "active", "done"])
    return await connection.fetchval(statement("verify_estimate"), tables) or None


async def jobs(connection: Connection, rows: int = PAGE_ROWS) -> AsyncGenerator[Page]:
    """Every job, a page at a time: is it in exactly one place, and did each of its runs end once?"""
    async for row in _walk(connection, "verify_jobs", rows):
        wrong = _wrong_jobs.decode(row["wrong"])
        yield Page(row["examined"], [found for it in wrong for found in it.found()])


async def places(connection: Connection, rows: int = PAGE_ROWS) -> AsyncGenerator[Page]:
    """Every place, a page at a time: is there a job that it belongs to?"""
    async for row in _walk(connection, "verify_places", rows):
        strays = _strays.decode(row["wrong"])
        yield Page(
            row["examined"], [Found(Violation.STRAY, it.job, f"in {it.place}", it.run) for it in strays]
        )


async def _walk(connection: Connection, name: str, rows: int) -> AsyncGenerator[asyncpg.Record]:
    after: UUID | None = LOWEST
    while after is not None:
        row = await connection.fetchrow(statement(name), after, rows)
        assert row is not None
        yield row
        after = row["last"]
