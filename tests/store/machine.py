"""Hypothesis plays the store against the model: any operation, in any order, with any answer that comes too late.

After every step the store must have answered what the model says, every job must stand where the model has it, with
every attempt and every earlier end on record, and the log must have told just that.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from jobyard.domain.errors import JobyardError
from jobyard.domain.job import DEFAULT_TENANT, NewJob
from jobyard.domain.lifecycle import (
    DEAD_LETTER_REASONS,
    Cancelled,
    Crashed,
    Fail,
    Failed,
    Outcome,
    Retry,
    Status,
    Succeeded,
    TimedOut,
)
from jobyard.domain.retry import Backoff
from jobyard.store import audit, dead_letters, dispatch, reads, upkeep, verbs
from jobyard.store.dead_letters import DeadLetters
from jobyard.store.dispatch import Claimed, ProgressSaid
from jobyard.store.intake import Created
from store.conftest import TABLES
from store.model import Job, Model, Place, Said, Try
from store.scene import LEASE, Scene, a_job, ending, keyed

A = TypeVar("A")

MINUTE, DAY = 60.0, 86400.0
SOON, LATER = 3 * MINUTE * 60, 3 * DAY
"""How far ahead a maintainer's clock goes: to behind every backoff, to behind every delay."""

PLACES = """
SELECT p.job, p.status, p.reason, p.run, p.attempt, p.crashes, l.suspect, p.lease, p.worker,
       EXISTS (SELECT FROM jobyard.scheduled s WHERE s.job = p.job AND p.status = 'pending') AS is_scheduled
FROM jobyard.place p LEFT JOIN jobyard.lane l ON l.id = p.lane
"""
TRIES = """
SELECT job, run, attempt, lease, worker, outcome FROM jobyard.attempt
UNION ALL SELECT job, run, attempt, lease, worker, status FROM jobyard.done
"""
LOG = (
    "SELECT seq, kind, jobs, attempts, details, leases, worker FROM jobyard.event WHERE seq > $1 ORDER BY seq"
)
EMPTY = "; ".join(f"DELETE FROM jobyard.{table}" for table in TABLES if table != "lane")
"""Lanes stay: they are never deleted, and their ids are cached. Truncating takes longer than the example itself."""

SOME = st.integers(0, 1000)
"""Which of those there are: they are counted off, so that there is always one."""
FEW = st.lists(SOME, min_size=1, max_size=3)
TYPES = ("email", "sms")
A_NEW_JOB = st.fixed_dictionaries(
    {
        "type": st.sampled_from(TYPES),
        "max_attempts": st.integers(1, 3),
        "backoff": st.sampled_from((Backoff(0.0, 0.0), Backoff(MINUTE, 2 * MINUTE))),
        "due_in": st.sampled_from((0.0, 0.0, 0.0, -MINUTE, MINUTE, DAY)),
        "is_dated": st.booleans(),
        "key": st.sampled_from((None, None, None, "mine", "yours")),
        "body": st.sampled_from(("one", "other")),
    }
)
OUTCOMES: Sequence[Outcome | None] = (
    Succeeded(),
    Succeeded('{"sent": true}'),
    Failed({"type": "Boom", "message": "it failed"}),
    Retry(),
    Retry(after=0.0),
    Retry(after=DAY),
    Fail("no such mailbox"),
    TimedOut(MINUTE),
    Cancelled(),
    Crashed("the process was killed"),
    None,
)
AN_OUTCOME = st.sampled_from(OUTCOMES)
A_FILTER = st.tuples(
    st.sampled_from((None, None, *TYPES)),
    st.sampled_from((None, None, *sorted(DEAD_LETTER_REASONS))),
    st.integers(1, 3),
)


def step(**drawn: Any) -> Callable[[Callable[..., Awaitable[None]]], Any]:
    """A rule whose body talks to the store; what holds after every step is looked at behind it."""

    def decorate(body: Callable[..., Awaitable[None]]) -> Any:
        @rule(**drawn)
        @functools.wraps(body)
        def run(machine: Machine, **values: Any) -> None:
            async def act_and_look() -> None:
                machine.model.begin()
                await body(machine, **values)
                await machine.look()

            machine.run(act_and_look())

        return run

    return decorate


def whenever(there_are: Callable[[Machine], Any]) -> Callable[[Any], Any]:
    return precondition(lambda machine: bool(there_are(machine)))


def answer_of(ask: Callable[[], A]) -> A | type[JobyardError]:
    """The model's answer, or what it refuses with."""
    try:
        return ask()
    except JobyardError as refusal:
        return type(refusal)


async def answered(work: Awaitable[A]) -> A | type[JobyardError]:
    """The store's answer, or what it refuses with."""
    try:
        return await work
    except JobyardError as refusal:
        return type(refusal)


class Machine(RuleBasedStateMachine):
    def __init__(self, runner: asyncio.Runner, scene: Scene) -> None:
        super().__init__()
        self.runner, self.scene, self.db = runner, scene, scene.db
        self.model = Model()
        self.ids = count(1)
        self.known = list[UUID]()
        self.started = list[int]()
        self.attempts = dict[int, tuple[Claimed, int]]()
        """Every one that ever was, by its lease, with its suspect level: its worker may still believe that it runs."""
        self.read_up_to = 0

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize(asked=st.lists(A_NEW_JOB, min_size=4, max_size=6))
    def begin_with_jobs_and_workers(self, asked: list[dict[str, Any]]) -> None:
        async def prepare() -> None:
            await self.db.execute(EMPTY)
            for _ in range(2):
                await self._start_worker()
            await self._create(asked)
            await self.look()

        self.run(prepare())

    # What there is to choose from

    def running(self) -> list[Job]:
        return self.model.with_status(Status.PROCESSING)

    def waiting(self) -> list[Job]:
        return self.model.with_status(Status.PENDING)

    def ready(self) -> list[Job]:
        return [job for job in self.waiting() if job.is_ready]

    def final(self) -> list[Job]:
        return self.model.with_status(Status.COMPLETED, Status.FAILED)

    def alive(self) -> list[int]:
        return [worker for worker, beats in self.model.workers.items() if beats]

    def busy(self) -> list[int]:
        return [worker for worker in self.alive() if self.model.held_by(worker)]

    def dead(self) -> list[int]:
        return [worker for worker in self.started if not self.model.workers.get(worker)]

    def lost(self) -> list[int]:
        """Leases that are nobody's any more: those of jobs that run under another, if there are any."""
        held = {job.lease: job.id for job in self.running()}
        lost = [lease for lease in self.attempts if lease not in held]
        return [lease for lease in lost if self.attempts[lease][0].job in held.values()] or lost

    # Jobs come

    @step(asked=st.lists(A_NEW_JOB, min_size=1, max_size=3))
    async def create(self, asked: list[dict[str, Any]]) -> None:
        await self._create(asked)

    async def _create(self, asked: list[dict[str, Any]]) -> None:
        jobs = [self._new_job(**options) for options in asked]
        expected = [
            self.model.create(job, options["due_in"]) for job, options in zip(jobs, asked, strict=True)
        ]
        answers = await self.scene.intake().create_many(jobs)
        assert [it if isinstance(it, Created) else type(it) for it in answers] == expected
        self.known += [it.id for it in expected if isinstance(it, Created) and not it.replayed]

    def _new_job(self, due_in: float, is_dated: bool, key: str | None, body: str, **options: Any) -> NewJob:
        if is_dated:
            options["run_at"] = datetime.now(UTC) + timedelta(seconds=due_in) if due_in else None
        else:
            options["delay_seconds"] = due_in or None
        options["id"] = UUID(int=next(self.ids))
        return keyed(key, body, **options) if key else a_job(**options)

    @whenever(lambda it: it.model.keys)
    @step(which=SOME, is_deleted=st.booleans())
    async def the_day_of_a_key_is_over(self, which: int, is_deleted: bool) -> None:
        key = _choose(list(self.model.keys), which)
        del self.model.keys[key]
        await self.db.execute(
            "UPDATE jobyard.idempotency SET expires_at = now() - interval '1s' WHERE key = $1", key
        )
        if is_deleted:
            await upkeep.delete_expired_keys(self.db)

    @whenever(lambda it: any(job.due_in > 0 for job in it.waiting()))
    @step(how_far=st.sampled_from((SOON, SOON, LATER)))
    async def promote(self, how_far: float) -> None:
        then = datetime.now(UTC) + timedelta(seconds=how_far)
        assert await upkeep.promote(self.db, then) == self.model.promote(how_far)

    # Attempts begin and end

    @whenever(ready)
    @step(
        which=SOME,
        limit=st.integers(1, 4),
        types=st.sampled_from((TYPES, TYPES, TYPES[:1])),
        levels=st.sampled_from(((0, 1, 2), (0, 1, 2), (0,), (1, 2))),
    )
    async def claim(self, which: int, limit: int, types: tuple[str, ...], levels: tuple[int, ...]) -> None:
        await self._claim(_choose(self.alive(), which), limit, types, levels)

    @whenever(lambda it: it.dead() and it.ready())
    @step(which=SOME)
    async def claim_by_a_dead_worker(self, which: int) -> None:
        await self._claim(_choose(self.dead(), which), 10, TYPES, (0, 1, 2))

    async def _claim(self, worker: int, limit: int, types: tuple[str, ...], levels: tuple[int, ...]) -> None:
        lanes = [lane for lane in await dispatch.lanes_of(self.db, types) if lane.suspect in levels]
        ids, keys = [lane.id for lane in lanes], [lane.key for lane in lanes]
        refusal = answer_of(lambda: self.model.must_be_alive(worker, keys))
        claimed = await answered(dispatch.claim(self.db, worker, ids, [0] * len(ids), limit, LEASE))
        if isinstance(claimed, type):
            assert claimed is refusal
            return
        assert refusal is None, f"worker {worker} is dead, and claimed {claimed}"
        self.model.claim(worker, keys, limit, {attempt.job: attempt.lease for attempt in claimed})
        for attempt in sorted(claimed, key=lambda it: it.lease):  # an example repeated must do the same
            job = self.model.jobs[attempt.job]
            assert (attempt.run, attempt.payload) == (job.run, job.asked.payload)
            assert attempt.standing(job.suspect) == job.standing
            self.attempts[attempt.lease] = attempt, job.suspect

    @whenever(running)
    @step(which=FEW, outcome=AN_OUTCOME)
    async def settle(self, which: list[int], outcome: Outcome | None) -> None:
        running = self.running()
        await self._settle({_choose(running, one).lease or 0 for one in which}, outcome)

    @whenever(lost)
    @step(which=FEW, others=st.lists(SOME, max_size=1), outcome=AN_OUTCOME)
    async def settle_too_late(self, which: list[int], others: list[int], outcome: Outcome | None) -> None:
        """Perhaps together with one that is in time."""
        lost, any_ = self.lost(), list(self.attempts)
        leases = {_choose(lost, one) for one in which} | {_choose(any_, one) for one in others}
        await self._settle(leases, outcome)

    async def _settle(self, leases: set[int], outcome: Outcome | None) -> None:
        """As a worker does: what is final by one statement, the rest by another."""
        endings = [
            ending(attempt, outcome, suspect=level)
            for attempt, level in (self.attempts[lease] for lease in sorted(leases))
        ]
        expected = self.model.settle([(it.job, it.lease) for it in endings], outcome)
        goes_back = [it for it in endings if it.change.status is Status.PENDING]
        is_over = [it for it in endings if it.change.status is not Status.PENDING]
        over = await dispatch.settle(self.db, is_over) if is_over else set[UUID]()
        moved = await dispatch.hand_back(self.db, self.scene.lanes, goes_back)
        assert (moved, over) == expected

    @whenever(lambda it: it.attempts)
    @step(which=SOME, is_late=st.booleans())
    async def tell_of_progress(self, which: int, is_late: bool) -> None:
        leases = (self.lost() if is_late else None) or list(self.attempts)
        attempt, _ = self.attempts[_choose(leases, which)]
        heard = await dispatch.put_progress(self.db, [ProgressSaid(attempt.job, attempt.lease, 50.0, "half")])
        assert heard == ({attempt.lease} if self.model.may_tell(attempt.job, attempt.lease) else set())

    @whenever(running)
    @step(which=SOME)
    async def a_deadline_passes(self, which: int) -> None:
        job = _choose(self.running(), which)
        job.is_overdue = True
        await self.db.execute("UPDATE jobyard.active SET deadline = now() WHERE job = $1", job.id)

    # Workers come and go

    async def _start_worker(self) -> None:
        worker = await self.scene.worker(*TYPES)
        self.model.workers[worker] = True
        self.started.append(worker)

    @whenever(running)
    @step(which=SOME)
    async def a_worker_dies(self, which: int) -> None:
        worker = _choose(self.busy() or self.alive(), which)
        self.model.workers[worker] = False
        await self.scene.expire(worker)
        await self._start_worker()

    @whenever(running)
    @step(which=SOME)
    async def a_worker_leaves(self, which: int) -> None:
        worker = _choose(self.busy() or self.alive(), which)
        del self.model.workers[worker]
        await dispatch.stop_worker(self.db, worker)
        await self._start_worker()

    @step(which=SOME)
    async def beat(self, which: int) -> None:
        worker = _choose(self.started, which)
        assert await dispatch.beat(self.db, worker, LEASE) == self.model.workers.get(worker, False)

    @whenever(running)
    @step(which=SOME, is_handed_back=st.booleans())
    async def a_worker_asks_what_it_holds(self, which: int, is_handed_back: bool) -> None:
        """And may release what it does not know of, the answer to its claim having been lost."""
        worker = _choose(self.running(), which).worker or 0
        held = await dispatch.held_by(self.db, worker)
        assert {it.job: (it.lease, it.standing) for it in held} == self.model.held_by(worker)
        assert [it.lane for it in held] == [self.model.jobs[it.job].lane for it in held]
        if is_handed_back:
            await self._settle({it.lease for it in held}, None)

    @whenever(lambda it: it.running() or it.dead())
    @step(is_far_ahead=st.sampled_from((False, False, False, True)))
    async def sweep(self, is_far_ahead: bool) -> None:
        then = datetime.now(UTC) + timedelta(seconds=2 * LEASE) if is_far_ahead else None
        swept = await upkeep.sweep(self.db, self.scene.lanes, then)
        assert upkeep.Swept(sorted(swept.workers), swept.ways) == self.model.sweep(all_expired=is_far_ahead)
        if is_far_ahead:
            await self._start_worker()

    # People ask

    @whenever(lambda it: it.known)
    @step(which=SOME, is_running=st.booleans())
    async def cancel(self, which: int, is_running: bool) -> None:
        running = [job.id for job in self.running()] if is_running else []
        job = _choose(running or self.known, which)
        answer = await answered(verbs.cancel(self.db, job, DEFAULT_TENANT))
        assert answer == answer_of(lambda: self.model.cancel(job))

    @whenever(lambda it: it.known)
    @step(which=SOME)
    async def retry(self, which: int) -> None:
        job = _choose(self.known, which)
        answer = await answered(verbs.retry(self.db, job, DEFAULT_TENANT))
        assert answer == answer_of(lambda: self.model.retry(job))

    @whenever(lambda it: it.final())
    @step(which=A_FILTER, every=st.sampled_from((0.0, MINUTE)))
    async def redrive(self, which: tuple[Any, Any, int], every: float) -> None:
        letters = await self._dead_letters(*which)
        assert await verbs.redrive(self.db, letters, every=every) == self.model.redrive(letters, every)

    @whenever(lambda it: it.known)
    @step(which=FEW, earlier=st.integers(0, 1))
    async def redrive_without_a_look(self, which: list[int], earlier: int) -> None:
        """A run that may have failed, or completed, or be answered already, or not be over."""
        jobs = {_choose(self.known, one) for one in which}
        asked = [(job, self.model.jobs[job].run - earlier if job in self.model.jobs else 1) for job in jobs]
        assert await verbs.redrive(self.db, asked) == self.model.redrive(asked)

    @whenever(lambda it: it.model.letters)
    @step(which=A_FILTER)
    async def purge(self, which: tuple[Any, Any, int]) -> None:
        letters = await self._dead_letters(*which)
        assert await dead_letters.purge(self.db, letters) == self.model.purge(letters)

    @whenever(lambda it: it.model.letters)
    @step(which=SOME)
    async def purge_what_was_seen_before(self, which: int) -> None:
        seen = self.model.letters
        living = [
            (job, run) for job, run in seen if job in self.model.jobs and self.model.jobs[job].run > run
        ]
        letters = [_choose(living or seen, which)]
        assert await dead_letters.purge(self.db, letters) == self.model.purge(letters)

    async def _dead_letters(self, type: Any, reason: Any, limit: int) -> list[tuple[UUID, int]]:
        wanted = DeadLetters(type=type, reason=reason)
        page = await dead_letters.oldest(self.db, DEFAULT_TENANT, wanted, audit.LOWEST, limit)
        found = [(row["id"], row["run"]) for row in page.rows]
        assert found == self.model.dead_letters(type, reason, limit)
        return found

    @whenever(final)
    @step(which=FEW, completed=st.booleans(), failed=st.booleans())
    async def what_is_old_is_deleted(self, which: list[int], completed: bool, failed: bool) -> None:
        for one in which:
            job = _choose(self.final(), one)
            job.is_old = True
            await self.db.execute(
                "UPDATE jobyard.done SET finished_at = now() - interval '9 days' WHERE job = $1 AND run = $2",
                job.id,
                job.run,
            )
        kept = {Status.COMPLETED: completed, Status.FAILED: failed}
        seconds = [30 * DAY if is_kept else 3 * DAY for is_kept in kept.values()]
        assert await upkeep.delete_finished(self.db, *seconds) == self.model.delete_finished(kept)

    # So that lives go on: these are as likely as all the others together.
    create_too = create
    claim_first = claim_next = claim_more = claim
    settle_first = settle_next = settle_more = settle

    # What holds after every step

    async def look(self) -> None:
        rows = await self.db.fetch(PLACES)
        assert self._all_different(
            [Place(**{**row, "lease": self._given(row["lease"])}) for row in rows], self.model.places()
        )
        tries = await self.db.fetch(TRIES)
        assert self._all_different([self._try(row["job"], row) for row in tries], self.model.tries())
        held = [row["lease"] for row in rows if row["status"] == "processing"]
        leases = held + [row["lease"] for row in tries]
        assert len(leases) == len(set(leases)), f"a lease with two owners: {sorted(leases)}"
        assert await self._newly_logged() == sorted(self.model.said, key=str)
        asked = [(job.id, job.run) for job in self.running() if job.is_asked_to_end]
        running = [(job.id, job.run) for job in self.running()]
        if running:
            assert sorted(await dispatch.cancel_requests(self.db, running)) == sorted(asked)

    def _all_different(self, found: list[A], expected: set[A]) -> bool:
        missing, strange = expected - set(found), set(found) - expected
        assert not missing, f"the model has them, the store has not: {missing}"
        assert not strange, f"the store has them, the model has not: {strange}"
        return len(found) == len(expected)

    def _given(self, lease: int | None) -> int | None:
        """The lease, if a claim was ever given it: the end of a run that waited has one of its own, which nobody knows."""
        return lease if lease in self.model.leases else None

    def _try(self, job: UUID, row: Any) -> Try:
        lease = self._given(row["lease"])
        return Try(job, row["run"], row["attempt"], lease, row["worker"], row["outcome"])

    async def _newly_logged(self) -> list[Said]:
        rows = await self.db.fetch(LOG, self.read_up_to)
        self.read_up_to = rows[-1]["seq"] if rows else self.read_up_to
        said = [
            Said(
                row["kind"],
                job,
                row["attempts"][at],
                row["details"] and row["details"][at],
                self._given(row["leases"] and row["leases"][at]),
                row["worker"],
            )
            for row in rows
            for at, job in enumerate(row["jobs"])
        ]
        return sorted(said, key=str)

    def teardown(self) -> None:
        """What people read of each job is what happened to it, newest first."""

        async def read_all() -> None:
            for job in self.model.jobs.values():
                rows = await reads.attempts(self.db, job.id, reads.NEWEST_LEASE, 1000, all_ends=True)
                over = [self._try(job.id, row) for row in rows if row["outcome"] != "running"]
                assert over == job.tries[::-1]
                assert len(rows) - len(over) == (job.status is Status.PROCESSING)

        self.run(read_all())


def _choose(of: Sequence[A], which: int) -> A:
    return of[which % len(of)]
