"""Reads the log of a database from its first row, and holds what it tells of attempts against what is on record."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from jobyard.store.audit import Found, Page, Violation
from jobyard.store.database import Connection
from jobyard.store.dispatch import ATTEMPTS_KEPT
from jobyard.store.statements import statement

PAGE_EVENTS = 200
"""Rows of the log looked at in one statement; each tells of up to some hundreds of jobs."""

SKEW = timedelta(minutes=1)
"""Two rows of the log may stand in another order than their times, by less than this."""

DOUBTS = 1000
"""Outcomes without a start that are kept back until the log is searched for their starts once more."""


class LeaseSet:
    """Leases seen, a bit each: they are numbers given out one after the other, so a hundred million take 13 MB."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}

    def add(self, lease: int) -> bool:
        """Whether it is new."""
        number, bit = divmod(lease, 1 << 16)
        chunk = self._chunks.setdefault(number, bytearray())
        if not chunk:
            chunk.extend(bytes(1 << 13))
        new = not chunk[bit >> 3] & 1 << (bit & 7)
        chunk[bit >> 3] |= 1 << (bit & 7)
        return new

    def __contains__(self, lease: int) -> bool:
        number, bit = divmod(lease, 1 << 16)
        chunk = self._chunks.get(number)
        return chunk is not None and bool(chunk[bit >> 3] & 1 << (bit & 7))


class _Told(msgspec.Struct):
    kind: str
    job: UUID
    lease: int
    run: int | None
    recorded: int | None
    begun: datetime | None


class _Denied(msgspec.Struct):
    kind: str
    job: UUID
    detail: str | None
    lease: int
    worker: int | None
    place: str | None
    outcome: str | None
    reason: str | None
    run: int | None
    recorded: int | None

    def found(self) -> Found:
        if self.kind != "started":
            log = _end(self.kind, self.detail if self.kind == "failed" else None)
            record = _end(self.outcome or "running", self.reason) if self.place else "nothing"
            return self._as(Violation.FINAL_CHANGED, f"the log tells {log}, the record {record}")
        match self.place:
            case None:
                return self._as(Violation.ATTEMPT_LOST, f"given to worker {self.worker}")
            case "active":
                return self._as(
                    Violation.TWO_OWNERS, f"given to worker {self.worker}, run by {self.recorded}"
                )
            case _:
                return self._as(
                    Violation.FOREIGN_OUTCOME, f"given to worker {self.worker}, ended by {self.recorded}"
                )

    def _as(self, violation: Violation, evidence: str) -> Found:
        return Found(violation, self.job, evidence, self.run, self.lease)


def _end(kind: str, reason: str | None) -> str:
    return f"{kind} ({reason})" if reason else kind


_told = msgspec.json.Decoder(list[_Told])
_denied = msgspec.json.Decoder(list[_Denied])


@dataclass
class _Reader:
    """What has been read so far. `since`: attempts that began after this have their start in the log."""

    started: LeaseSet = field(default_factory=LeaseSet)
    ended: LeaseSet = field(default_factory=LeaseSet)
    since: datetime | None = None
    doubts: list[Found] = field(default_factory=list[Found])

    def begin(self, first: int | None, at: datetime | None) -> None:
        """The log begins with this row: where it is not the very first, older ones are gone."""
        if first is not None:
            self.since = datetime.min.replace(tzinfo=UTC) if first == 1 or at is None else at + SKEW

    def was_blind(self, at: datetime) -> None:
        """A start at this time does not tell its lease."""
        self.since = max(self.since or at, at + SKEW)

    def read(self, told: list[_Told]) -> Iterator[Found]:
        for it in told:
            if it.kind == "started":
                if not self.started.add(it.lease):
                    yield Found(Violation.TWO_OWNERS, it.job, "the log tells two starts", it.run, it.lease)
                continue
            if not self.ended.add(it.lease):
                yield Found(Violation.TWO_OUTCOMES, it.job, "the log tells two ends", it.run, it.lease)
            if it.lease not in self.started and it.begun and self.since and it.begun > self.since:
                evidence = f"ended by worker {it.recorded}, given to nobody"
                self.doubts.append(Found(Violation.FOREIGN_OUTCOME, it.job, evidence, it.run, it.lease))


async def events(connection: Connection, rows: int = PAGE_EVENTS) -> AsyncGenerator[Page]:
    """The log up to where it ends now, a page at a time: did each attempt have one owner and one end, and by its owner?"""
    reader = _Reader()
    last, end = 0, await connection.fetchval("SELECT max(seq) FROM jobyard.event") or 0
    while last is not None:
        page = await connection.fetchrow(statement("verify_log"), last, rows, end, ATTEMPTS_KEPT)
        assert page is not None
        if reader.since is None:
            reader.begin(page["first"], page["at"])
        if page["without_leases"]:
            reader.was_blind(page["without_leases"])
        found = [it.found() for it in _denied.decode(page["wrong"])]
        found += reader.read(_told.decode(page["told"]))
        last = page["last"]
        if last is None or len(reader.doubts) > DOUBTS:
            found += await _without_start(connection, reader.doubts)
            reader.doubts.clear()
        yield Page(page["examined"], found)


async def _without_start(connection: Connection, doubts: list[Found]) -> list[Found]:
    """Those of them that the log has no start of, after all: one may have been committed behind the reader, with a
    lower place in the log."""
    if not doubts:
        return []
    rows = await connection.fetch(statement("verify_started"), [it.lease for it in doubts])
    known = {row["lease"] for row in rows}
    return [it for it in doubts if it.lease not in known]
