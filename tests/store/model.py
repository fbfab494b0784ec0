"""What the store has to do, as plain values: jobs, leases, workers and keys in dictionaries, moved by the functions of
the domain. It knows no SQL and reads no clock; what it cannot know (the number of a lease) it is told.

Every method is an operation of the store. It moves the model and returns the answer that the store has to give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from jobyard.domain import lifecycle
from jobyard.domain.errors import IdempotencyMismatch, NotFound, WorkerExpired
from jobyard.domain.events import ENDINGS, AttemptOutcome, EventType
from jobyard.domain.job import LaneKey, NewJob
from jobyard.domain.lifecycle import (
    DEAD_LETTER_REASONS,
    MOVES,
    TRUSTED,
    Cause,
    Change,
    Outcome,
    Reason,
    Standing,
    Status,
    TimedOut,
    is_final,
)
from jobyard.store.dispatch import Moved
from jobyard.store.intake import Created
from jobyard.store.upkeep import Swept
from jobyard.store.verbs import Cancelled

CHANCE = 0.5


class Place(NamedTuple):
    """Where a job is, or was at the end of an earlier run. What a place does not keep is None."""

    job: UUID
    status: str
    reason: str | None
    run: int
    attempt: int
    crashes: int | None
    suspect: int | None
    is_scheduled: bool
    lease: int | None
    worker: int | None


class Try(NamedTuple):
    """An attempt that is over, or, without a lease, a run that ended while it was pending."""

    job: UUID
    run: int
    attempt: int
    lease: int | None
    worker: int | None
    outcome: str


class Said(NamedTuple):
    """One job in the event log."""

    kind: str
    job: UUID
    attempt: int
    detail: str | None = None
    lease: int | None = None
    worker: int | None = None


@dataclass
class Job:
    asked: NewJob
    status: Status = Status.PENDING
    run: int = 1
    attempt: int = 0
    crashes: int = 0
    suspect: int = TRUSTED
    due_in: float = 0.0
    turn: int = 0
    """When it came to stand in line: those of one turn may be taken in any order."""
    lease: int | None = None
    worker: int | None = None
    is_overdue: bool = False
    is_asked_to_end: bool = False
    is_old: bool = False
    ends: list[Place] = field(default_factory=list[Place])
    tries: list[Try] = field(default_factory=list[Try])

    @property
    def id(self) -> UUID:
        return self.asked.id

    @property
    def lane(self) -> LaneKey:
        return self.asked.lane.at_level(self.suspect)

    @property
    def standing(self) -> Standing:
        return Standing(self.attempt, self.asked.max_attempts, self.crashes, self.suspect, self.asked.backoff)

    @property
    def is_ready(self) -> bool:
        return self.status is Status.PENDING and self.due_in <= 0

    @property
    def reason(self) -> str | None:
        return self.ends[-1].reason if is_final(self.status) else None

    @property
    def is_dead_letter(self) -> bool:
        return self.status is Status.FAILED and Reason(str(self.reason)) in DEAD_LETTER_REASONS

    def places(self) -> Iterator[Place]:
        yield from self.ends
        if not is_final(self.status):
            yield self._place(None)

    def move(self, status: Status, cause: Cause) -> None:
        assert cause in MOVES[self.status, status], f"no such move: {self.status} to {status} by {cause}"
        self.status = status

    def over(self, status: Status, cause: Cause) -> None:
        """The run ends here; how it ended is kept for good."""
        self.move(status, cause)
        outcome = Change(status, cause, self.attempt)
        self.ends.append(self._place(outcome.reason)._replace(crashes=None, suspect=None))
        self.tries.append(Try(self.id, self.run, self.attempt, self.lease, self.worker, status.value))

    def _place(self, reason: Reason | None) -> Place:
        return Place(
            self.id,
            self.status.value,
            reason and reason.value,
            self.run,
            self.attempt,
            self.crashes,
            self.suspect,
            self.status is Status.PENDING and self.due_in > 0,
            self.lease,
            self.worker,
        )


@dataclass
class Model:
    jobs: dict[UUID, Job] = field(default_factory=dict[UUID, Job])
    workers: dict[int, bool] = field(default_factory=dict[int, bool])
    """Whether it still beats. One that nobody has a row of is missing."""
    keys: dict[str, NewJob] = field(default_factory=dict[str, NewJob])
    leases: set[int] = field(default_factory=set[int])
    """All that were ever given out."""
    letters: list[tuple[UUID, int]] = field(default_factory=list[tuple[UUID, int]])
    """Every (job, run) that ever was a dead letter."""
    said: list[Said] = field(default_factory=list[Said])
    """What the log has to say of the operation that was last."""
    turn: int = 0

    # What is asked of it

    def places(self) -> set[Place]:
        return {place for job in self.jobs.values() for place in job.places()}

    def tries(self) -> set[Try]:
        return {one for job in self.jobs.values() for one in job.tries}

    def with_status(self, *statuses: Status) -> list[Job]:
        return [job for job in self.jobs.values() if job.status in statuses]

    def holder(self, job: UUID, lease: int) -> Job | None:
        """The job, if this lease is its running attempt's."""
        found = self.jobs.get(job)
        return found if found and found.status is Status.PROCESSING and found.lease == lease else None

    def held_by(self, worker: int) -> dict[UUID, tuple[int | None, Standing]]:
        running = self.with_status(Status.PROCESSING)
        return {job.id: (job.lease, job.standing) for job in running if job.worker == worker}

    def may_tell(self, job: UUID, lease: int) -> bool:
        """Whether an attempt is heard when it tells of its progress: it runs, or has completed the job."""
        found = self.jobs.get(job)
        return bool(found and found.lease == lease and found.status in (Status.PROCESSING, Status.COMPLETED))

    def dead_letters(self, type: str | None, reason: Reason | None, limit: int) -> list[tuple[UUID, int]]:
        """The oldest of them."""
        found = [
            (job.id, job.run)
            for job in self.jobs.values()
            if job.is_dead_letter and type in (None, job.asked.type) and reason in (None, job.reason)
        ]
        return sorted(found)[:limit]

    # Creating

    def create(self, asked: NewJob, due_in: float) -> Created | type[IdempotencyMismatch]:
        key = asked.idempotency
        first = self.keys.setdefault(key.key, asked) if key else asked
        if first is not asked:
            same = first.idempotency == key
            return Created(first.id, replayed=True) if same else IdempotencyMismatch
        self.jobs[asked.id] = job = Job(asked)
        self._say(EventType.CREATED, job)
        self._in_line(job, due_in)
        return Created(asked.id)

    # Attempts

    def line(self, lane: LaneKey) -> list[Job]:
        waiting = [job for job in self.jobs.values() if job.is_ready and job.lane == lane]
        return sorted(waiting, key=lambda job: job.turn)

    def claim(self, worker: int, lanes: Sequence[LaneKey], limit: int, taken: Mapping[UUID, int]) -> None:
        """`taken`: the jobs that the store gave, with their new leases, all of them to be the first in line."""
        self.must_be_alive(worker, lanes)
        assert not self.leases & set(taken.values()), "a lease is given out again"
        self.leases |= set(taken.values())
        left = limit
        for lane in lanes:
            line = self.line(lane)
            got = [job for job in line if job.id in taken]
            assert len(got) == min(len(line), left), f"{lane}: took {len(got)} of {len(line)}, {left} wanted"
            passed_over = [job.turn for job in line if job.id not in taken]
            assert all(job.turn <= turn for job in got for turn in passed_over), "not the first in line"
            by_lease = [job.turn for job in sorted(got, key=lambda job: taken[job.id])]
            assert by_lease == sorted(by_lease), "leases out of line"
            for job in got:
                self._start(job, taken[job.id], worker)
            left -= len(got)
        assert limit - left == len(taken), "took jobs that were not in these lanes"

    def must_be_alive(self, worker: int, lanes: Sequence[LaneKey]) -> None:
        """A claim that finds something proves its worker."""
        if any(self.line(lane) for lane in lanes) and not self.workers.get(worker):
            raise WorkerExpired

    def _start(self, job: Job, lease: int, worker: int) -> None:
        job.move(Status.PROCESSING, Cause.CLAIM)
        job.attempt += 1
        job.lease, job.worker, job.is_overdue = lease, worker, False
        self._say(EventType.STARTED, job, lease=lease, worker=worker)

    def settle(self, ended: Iterable[tuple[UUID, int]], outcome: Outcome | None) -> tuple[Moved, set[UUID]]:
        """How these attempts end with one outcome, or, without one, are released: who went back (and was cancelled
        instead), and who is over."""
        back, cancelled, over = set[UUID](), set[UUID](), set[UUID]()
        for job in filter(None, [self.holder(*one) for one in ended]):
            change = self.change(job, outcome)
            was_cancelled = self._end(job, change)
            if is_final(change.status):
                over.add(job.id)
            else:
                back.add(job.id)
                cancelled |= {job.id} if was_cancelled else set()
        return Moved(back, cancelled), over

    def change(self, job: Job, outcome: Outcome | None) -> Change:
        return (
            lifecycle.release(job.standing)
            if outcome is None
            else lifecycle.settle(job.standing, outcome, CHANCE)
        )

    def _end(self, job: Job, change: Change) -> bool:
        """The running attempt ends. True: it would have gone back, but somebody had asked the job to end."""
        cancelled = job.is_asked_to_end and change.status is Status.PENDING
        if cancelled:
            change = Change(Status.FAILED, Cause.CANCELLED, job.attempt, job.crashes)
        detail = change.reason or (change.cause if change.status is Status.PENDING else None)
        if is_final(change.status):
            kind = EventType(f"job.{change.status.value}")
            self._say(kind, job, detail, job.lease)
            self._over(job, change.status, change.cause)
            return cancelled
        self._say(ENDINGS[AttemptOutcome(change.cause.value)], job, detail, job.lease)
        job.tries.append(Try(job.id, job.run, job.attempt, job.lease, job.worker, change.cause.value))
        job.move(Status.PENDING, change.cause)
        job.attempt, job.crashes, job.suspect = change.attempt, change.crashes, change.suspect
        self._in_line(job, change.run_in or 0.0)
        return cancelled

    # Workers and time

    def sweep(self, *, all_expired: bool) -> Swept:
        gone = {worker for worker, beats in self.workers.items() if all_expired or not beats}
        for worker in gone:
            del self.workers[worker]
        ways = list[tuple[LaneKey, Cause]]()
        for job in sorted(self.with_status(Status.PROCESSING), key=lambda job: job.id):
            if job.worker in self.workers and not job.is_overdue:
                continue
            change = (
                self.change(job, TimedOut(job.asked.timeout_seconds))
                if job.worker in self.workers
                else lifecycle.abandon(job.standing, CHANCE)
            )
            lane = job.lane
            ways.append((lane, Cause.CANCELLED if self._end(job, change) else change.cause))
        return Swept([(worker, "w") for worker in sorted(gone)], ways)

    def promote(self, seconds_from_now: float) -> int:
        waiting = self.with_status(Status.PENDING)
        due = [job for job in waiting if 0 < job.due_in <= seconds_from_now]
        for job in due:
            self._in_line(job, 0.0)
        return len(due)

    def delete_finished(self, kept: Mapping[Status, bool]) -> int:
        """`kept`: whether the old ones with this status are kept all the same."""
        going = [job.id for job in self.jobs.values() if job.is_old and not kept[job.status]]
        for job in going:
            del self.jobs[job]
        return len(going)

    # Verbs

    def cancel(self, job: UUID) -> Cancelled:
        found = self._known(job)
        if lifecycle.cancel(found.status) is Status.FAILED:
            self._say(EventType.FAILED, found, Cause.CANCELLED)
            self._over(found, Status.FAILED, Cause.CANCELLED)
            return Cancelled.AT_ONCE
        if not found.is_asked_to_end:
            self._say(EventType.CANCEL_REQUESTED, found, lease=found.lease)
        found.is_asked_to_end = True
        return Cancelled.ASKED

    def retry(self, job: UUID) -> int:
        found = self._known(job)
        lifecycle.redrive(found.status)
        self.redrive([(job, found.run)])
        return found.run

    def redrive(self, failed: Sequence[tuple[UUID, int]], every: float = 0.0) -> set[UUID]:
        """Only those that failed in the run they are named with, and it is their last."""
        found = [
            self.jobs[job]
            for job, run in sorted(failed)
            if job in self.jobs and (self.jobs[job].status, self.jobs[job].run) == (Status.FAILED, run)
        ]
        for number, job in enumerate(found):
            job.move(lifecycle.redrive(job.status), Cause.REDRIVE)
            lease, job.lease, job.worker = job.lease, None, None
            job.run, job.attempt, job.crashes, job.suspect = job.run + 1, 0, 0, TRUSTED
            job.is_asked_to_end = job.is_old = False
            self._say(EventType.REDRIVEN, job, lease=lease)
            self._in_line(job, every * number)
        return {job.id for job in found}

    def purge(self, letters: Sequence[tuple[UUID, int]]) -> set[UUID]:
        gone = {job for job, run in letters if job in self.jobs and self.jobs[job].run == run}
        for job in gone:
            del self.jobs[job]
        return gone

    # How it is written down

    def begin(self) -> None:
        """An operation begins."""
        self.said = []
        self.turn += 1

    def _known(self, job: UUID) -> Job:
        if job not in self.jobs:
            raise NotFound(str(job))
        return self.jobs[job]

    def _in_line(self, job: Job, due_in: float) -> None:
        job.due_in, job.turn = due_in, self.turn
        job.lease = job.worker = None

    def _over(self, job: Job, status: Status, cause: Cause) -> None:
        job.due_in = 0.0
        job.over(status, cause)
        if job.is_dead_letter:
            self.letters.append((job.id, job.run))

    def _say(
        self,
        kind: EventType,
        job: Job,
        detail: str | None = None,
        lease: int | None = None,
        worker: int | None = None,
    ) -> None:
        word = kind.value.removeprefix("job.")
        self.said.append(Said(word, job.id, job.attempt, detail and str(detail), lease, worker))
