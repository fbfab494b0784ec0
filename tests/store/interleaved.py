"""Operations on the same jobs and worker, through every order of their statements, on real PostgreSQL.

After every step: each job is in one place, moved only as the lifecycle allows, no lease has two owners, what is
final stays, and the log tells where each job is. After the last: no attempt runs under a worker that is gone, who
says that it ended an attempt did end it, and the whole came out as if one operation had followed the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from jobyard.domain.errors import NotFound, WorkerExpired, WrongState
from jobyard.domain.job import LaneKey
from jobyard.domain.lifecycle import MOVES, Outcome, Retry, Standing, Status, Succeeded, release, settle
from jobyard.domain.retry import Backoff
from jobyard.store import database as db
from jobyard.store import dead_letters, dispatch, upkeep, verbs
from jobyard.store.dispatch import Ending
from jobyard.store.lanes import Lanes
from store.scene import Scene
from store.stepped import Order, Session, every_order, is_serial, play

RUNNING, READY, DUE, FAILED = (UUID(int=number) for number in (1, 2, 3, 4))
MINE, OTHER = 1, 2
LEVELS = [1, 2, 3]
TRUSTED_LANE = LaneKey(1, "default", "email", 5)

SET_THE_SCENE = f"""
DELETE FROM jobyard.ready; DELETE FROM jobyard.active; DELETE FROM jobyard.scheduled; DELETE FROM jobyard.done;
DELETE FROM jobyard.attempt; DELETE FROM jobyard.event; DELETE FROM jobyard.worker; DELETE FROM jobyard.redrive;
DELETE FROM jobyard.cancel_request; DELETE FROM jobyard.job;
INSERT INTO jobyard.job (id, timeout_seconds, backoff_base, backoff_cap, lane, max_attempts, priority, type, queue, payload)
SELECT id, 3600, 2, 3600, 1, 5, 5, 'email', 'default', '{{}}'
FROM unnest('{{{RUNNING},{READY},{DUE},{FAILED}}}'::uuid[]) id;
INSERT INTO jobyard.worker (id, expires_at, concurrency, name, types) OVERRIDING SYSTEM VALUE
VALUES ({MINE}, now() + interval '10s', 8, 'mine', '{{email}}'),
       ({OTHER}, now() + interval '1h', 8, 'other', '{{email}}');
INSERT INTO jobyard.ready (lane, run, attempt, crashes, job) VALUES (1, 1, 0, 0, '{READY}');
INSERT INTO jobyard.scheduled (job, run_at, lane, run, attempt, crashes)
VALUES ('{DUE}', now() - interval '1s', 1, 1, 1, 0);
INSERT INTO jobyard.active (job, lease, worker, deadline, tenant, lane, run, attempt, crashes)
VALUES ('{RUNNING}', nextval('jobyard.ready_seq_seq'), {MINE}, now() + interval '1h', 1, 1, 1, 1, 0);
INSERT INTO jobyard.done (job, run, attempt, lease, worker, started_at, tenant, status, reason)
VALUES ('{FAILED}', 1, 5, nextval('jobyard.ready_seq_seq'), {OTHER}, now(), 1, 'failed', 'exhausted');
INSERT INTO jobyard.event (tenant, kind, jobs, attempts)
VALUES (1, 'created', '{{{RUNNING},{READY},{DUE}}}', '{{0,0,0}}'), (1, 'started', '{{{RUNNING}}}', '{{1}}'),
       (1, 'failed', '{{{FAILED}}}', '{{5}}');
"""

WORLDS = {
    "live": "SELECT",
    "overdue": "UPDATE jobyard.active SET deadline = now()",
    "dead": f"UPDATE jobyard.worker SET expires_at = now() - interval '1s' WHERE id = {MINE}",
    # To everybody but the sweep, which judges by a clock 20 s ahead: the worker expires while the pair is running.
    "expiring": "SELECT",
    # The lease that the operations carry was lost: another worker runs the job under a newer one.
    "late": f"""
        INSERT INTO jobyard.attempt (job, lease, run, attempt, worker, started_at, outcome)
        SELECT job, lease, run, attempt, worker, claimed_at, 'release' FROM jobyard.active;
        UPDATE jobyard.active SET lease = nextval('jobyard.ready_seq_seq'), worker = {OTHER}""",
}
FACTS = """
SELECT p.job, p.run, p.status, p.reason, p.attempt, p.crashes, p.lane, p.worker, p.lease = $1 AS old_lease, p.lease,
       (SELECT e.kind FROM jobyard.event e WHERE p.job = ANY (e.jobs) ORDER BY e.seq DESC LIMIT 1) AS told
FROM jobyard.place p ORDER BY p.job, p.run
"""
TOLD = {
    "pending": {"created", "released", "retry_scheduled", "redriven"},
    "processing": {"started", "cancel_requested"},
    "completed": {"completed"},
    "failed": {"failed"},
}


@dataclass
class World:
    """The jobs before the operations, and what these know of them."""

    scene: Scene
    kind: str
    lease: int = 0
    seen: dict[UUID, tuple[Any, ...]] = field(default_factory=dict[UUID, tuple[Any, ...]])
    lanes: Lanes = field(default_factory=Lanes)

    async def begin(self) -> None:
        await self.scene.db.execute(SET_THE_SCENE)
        self.lease = await self.scene.db.fetchval("SELECT lease FROM jobyard.active")
        await self.scene.db.execute(WORLDS[self.kind])
        self.seen = {}
        await self.check([])

    async def facts(self) -> dict[UUID, Any]:
        """The last place of each job. A job that ended has one in each run before, too."""
        rows = await self.scene.db.fetch(FACTS, self.lease)
        runs = [(row["job"], row["run"]) for row in rows]
        assert len(runs) == len(set(runs)), f"in two places: {rows}"
        last = {row["job"]: row for row in rows}
        before = [row for row in rows if row is not last[row["job"]]]
        assert all(row["status"] == "failed" for row in before), (
            f"a run that goes on after another began: {rows}"
        )
        there = await self.scene.db.fetch("SELECT id FROM jobyard.job ORDER BY id")
        assert [*last] == [row["id"] for row in there], f"lost: {rows}"
        assert {RUNNING, READY, DUE} <= last.keys(), f"deleted: {rows}"
        return last

    async def check(self, _answers: list[Any]) -> None:
        """What holds after every step, for what is committed by now."""
        facts = await self.facts()
        for job, row in facts.items():
            assert row["told"] in TOLD[row["status"]], f"the log says otherwise: {row}"
            now = (Status(row["status"]), row["reason"], row["lease"])
            before = self.seen.get(job, now)
            assert now == before or before[0] is now[0] is Status.PENDING or (before[0], now[0]) in MOVES, (
                before,
                now,
            )
            self.seen[job] = now
        leases = await self.scene.db.fetch(
            "SELECT job, lease FROM jobyard.active UNION ALL SELECT job, lease FROM jobyard.done"
            " UNION ALL SELECT job, lease FROM jobyard.attempt"
        )
        assert len(leases) == len(set(leases)), f"a lease with two owners: {leases}"

    async def outcome(self, names: tuple[str, ...], answers: list[Any]) -> tuple[Any, ...]:
        """What holds at the end, and all that can be compared between two orders."""
        orphans = (
            "SELECT count(*) FROM jobyard.active a WHERE a.worker NOT IN (SELECT id FROM jobyard.worker)"
        )
        assert await self.scene.db.fetchval(orphans) == 0, "an attempt runs under a worker that is gone"
        ended = await self.scene.db.fetchval(
            "SELECT count(*) FROM (SELECT lease FROM jobyard.done UNION ALL SELECT lease FROM jobyard.attempt) e"
            " WHERE lease = $1",
            self.lease,
        )
        said = [answer for name, answer in zip(names, answers, strict=True) if name in ENDS_THE_ATTEMPT]
        taken_back = sum(
            answer != "nothing" for name, answer in zip(names, answers, strict=True) if name == "sweep"
        )
        claims_to_have = sum(answer == {RUNNING} for answer in said)
        # The sweep may have taken back what a claim took meanwhile, so it counts at most.
        lost_before = self.kind == "late"
        assert claims_to_have + lost_before <= ended <= claims_to_have + lost_before + taken_back
        facts = await self.facts()
        drop = ("told", "lease")
        places = tuple(
            tuple(value for column, value in row.items() if column not in drop) for row in facts.values()
        )
        return (*(str(answer) for answer in answers), places)


# The operations


def _ending(world: World, outcome: Outcome | None) -> list[Ending]:
    standing = Standing(1, 5, 0, 0, Backoff())
    change = release(standing) if outcome is None else settle(standing, outcome, 0.5)
    return [Ending(RUNNING, world.lease, TRUSTED_LANE, change)]


async def _claim(session: Any, worker: int) -> Any:
    try:
        return sorted(it.job for it in await dispatch.claim(session, worker, LEVELS, [0, 0, 0], 10, 30.0))
    except WorkerExpired:
        # The server has undone the transaction; there is nothing left to commit.
        await session._connection.execute("ROLLBACK; BEGIN")
        return "the worker is gone"


async def _hand_back(session: Any, world: World, outcome: Outcome | None) -> set[UUID]:
    return (await dispatch.hand_back(session, world.lanes, _ending(world, outcome))).jobs


async def _ask(verb: Awaitable[Any]) -> Any:
    try:
        return await verb
    except (NotFound, WrongState) as refusal:
        return str(refusal)


async def _sweep(session: Any, world: World) -> Any:
    now = datetime.now(UTC) + timedelta(seconds=20) if world.kind == "expiring" else None
    swept = await upkeep.sweep(session, world.lanes, now)
    return swept if swept.attempts else "nothing"


OPERATIONS: dict[str, Callable[[Any, World], Awaitable[Any]]] = {
    "claim": lambda session, _: _claim(session, MINE),
    "claim of another": lambda session, _: _claim(session, OTHER),
    "settle": lambda session, world: dispatch.settle(session, _ending(world, Succeeded())),
    "retry": lambda session, world: _hand_back(session, world, Retry(60.0)),
    "release": lambda session, world: _hand_back(session, world, None),
    "sweep": _sweep,
    "promote": lambda session, _: upkeep.promote(session),
    "beat": lambda session, _: dispatch.beat(session, MINE, 30.0),
    "cancel running": lambda session, _: _ask(verbs.cancel(session, RUNNING, 1)),
    "cancel ready": lambda session, _: _ask(verbs.cancel(session, READY, 1)),
    "cancel due": lambda session, _: _ask(verbs.cancel(session, DUE, 1)),
    "try again": lambda session, _: _ask(verbs.retry(session, FAILED, 1)),
    "redrive": lambda session, _: _ask(verbs.redrive(session, [(FAILED, 1)])),
    "purge": lambda session, _: _ask(dead_letters.purge(session, [(FAILED, 1)])),
}
ENDS_THE_ATTEMPT = ("settle", "retry", "release")
BY_WORKERS = ("claim", "claim of another", "settle", "retry", "release", "sweep", "promote", "beat")
MEETS = {
    "cancel running": {"settle", "retry", "release", "sweep", "beat", "claim of another"},
    "cancel ready": {"claim", "claim of another"},
    "cancel due": {"promote", "claim"},
    "try again": {"claim", "redrive", "purge"},
    "redrive": {"claim", "purge"},
    "purge": {"claim", "try again", "redrive"},
}
"""What people ask of a job, and what else moves that job; each meets itself, too."""


def pairs_of(kind: str) -> list[tuple[str, str]]:
    """Those pairs that this world treats otherwise than the live one does."""
    touched = {
        "live": set(OPERATIONS),
        "overdue": {"sweep"},
        "dead": {"sweep", "beat", "claim"},
        "expiring": {"sweep"},
        "late": set(ENDS_THE_ATTEMPT),
    }
    pairs = [*itertools.combinations_with_replacement(BY_WORKERS, 2)]
    pairs += [(verb, other) for verb in MEETS for other in sorted({verb, *MEETS[verb]})]
    return [pair for pair in pairs if touched[kind] & set(pair)]


async def through_every_order(scene: Scene, kind: str, names: tuple[str, ...]) -> int:
    """How many orders there are; fails in the first that breaks a rule."""
    await scene.db.execute(
        "INSERT INTO jobyard.lane (tenant, queue, type, priority, suspect) SELECT 1, 'default', 'email', 5, level"
        " FROM generate_series(0, 2) level ON CONFLICT DO NOTHING"
    )
    world = World(scene, kind)
    for level in range(3):
        await world.lanes.id_of(scene.db, TRUSTED_LANE.at_level(level))
    connections = [await db.connect(scene.url, hot=True, name="stepped") for _ in names]
    sessions = [Session(connection, scene.db) for connection in connections]
    outcomes = dict[Order, tuple[Any, ...]]()

    async def playing(prefix: Order) -> list[tuple[int, set[int]]]:
        await world.begin()
        operations = [lambda session, name=name: OPERATIONS[name](session, world) for name in names]
        steps = await play(prefix, sessions, operations, world.check)
        answers = [session.answer for session in sessions]
        outcomes[tuple(goes for goes, _ in steps)] = await world.outcome(names, answers)
        return steps

    try:
        orders = await every_order(playing)
    finally:
        for connection in connections:
            await connection.close()
    # A sweep passes over a worker's row that somebody holds; it comes back 2 s later, so that is no order's outcome.
    if not (kind == "expiring" and "sweep" in names):
        serial = {outcome for order, outcome in outcomes.items() if is_serial(order)}
        strange = {order: outcome for order, outcome in outcomes.items() if outcome not in serial}
        assert not strange, f"came out as no order of the whole operations does: {strange}; those: {serial}"
    return len(orders)
