"""What the statements cost: plans made on empty tables that stay right on full ones, and what can be counted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from jobyard.domain.lifecycle import Retry, Succeeded
from jobyard.store import database as db
from jobyard.store import dead_letters, dispatch, intake, upkeep
from jobyard.store.intake import Intake
from jobyard.store.lanes import Lanes
from jobyard.store.reads import SOURCES
from jobyard.store.statements import statement, statement_names
from store.scene import LEASE, Scene, a_job, ending

GROWING = {
    *("job", "ready", "active", "scheduled", "done", "attempt", "event", "idempotency"),
    *("redrive", "cancel_request", "progress", "job_log", "message", "delivery", "tick"),
}
"""Tables that may hold millions of rows. `worker` and `lane` are small, and `active` holds what is in flight."""

HOT = {"create", "claim", "settle", "back", "lock_held"}
WALKS = {
    "announce_lanes": "ready",
    "relay_take": "tick",
    "tick_make": "tick",
    "event_expire": "event",
    "next_due": "scheduled",
    "sample_last_event": "event",
    "lock_abandoned": "active",
}
"""Statements that walk a table in the order of an index, without a key to look for, until a LIMIT ends it."""

COUNTS = {"sample_count", "verify_started", "log_restored"}
"""Statements that are there to read everything, once in a while and not under the hot settings."""

Node = dict[str, Any]


def texts(name: str) -> list[str]:
    """A statement as it is sent; the list is sent in one form a source."""
    match name:
        case "list":
            return [statement("list").replace("{source}", source) for source in SOURCES]
        case "dead_letters":
            return [dead_letters.dead_letters_statement(*form) for form in dead_letters.SOURCES]
        case _:
            return [statement(name)]


@pytest.fixture
async def hot(database: str) -> AsyncIterator[db.Connection]:
    """A connection of the pool that runs the statements, on tables that are empty and freshly vacuumed."""
    pool = await db.open_pool(database, size=1, hot=True, name="test")
    async with pool.acquire() as connection:
        await connection.execute("VACUUM ANALYZE")
        yield connection
    await pool.close()


async def explain(connection: db.Connection, sql: str, *values: str, options: str = "") -> Node:
    """The plan as PostgreSQL makes it for a prepared statement. `values` are written as SQL; null by default."""
    parameters = (await connection.prepare(sql)).get_parameters()
    given = ", ".join(values or ["NULL"] * len(parameters))
    await connection.execute(f"PREPARE explained AS {sql}")
    execute = f"EXECUTE explained({given})" if given else "EXECUTE explained"
    try:
        return json.loads(await connection.fetchval(f"EXPLAIN ({options}FORMAT JSON) {execute}"))[0]
    finally:
        await connection.execute("DEALLOCATE explained")


def nodes(plan: Node, above: tuple[Node, ...] = ()) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Every node of a plan with those above it, the nearest last."""
    yield plan, above
    for child in plan.get("Plans", ()):
        yield from nodes(child, (*above, plan))


def faults(name: str, plan: Node) -> list[str]:
    """What would hurt once the tables are full."""
    found = list[str]()
    for node, above in nodes(plan):
        kind, table = node["Node Type"], node.get("Relation Name")
        is_scan = kind.endswith("Scan") and table in GROWING
        if kind in ("Hash Join", "Merge Join"):
            found.append(f"{kind}")
        if is_scan and kind not in ("Index Scan", "Index Only Scan", "Tid Scan") and not _is_by_gin(node):
            found.append(f"{kind} on {table}")
        if (
            is_scan
            and kind.startswith("Index")
            and "Index Cond" not in node
            and not _is_a_walk(name, node, above)
        ):
            found.append(f"reads all of {table}")
        if kind == "Sort" and name in HOT and any(below.get("Relation Name") for below, _ in nodes(node)):
            found.append("sorts a table")
    return found


def _is_by_gin(node: Node) -> bool:
    """An index of tags or metadata can be read in no other way."""
    below = {it.get("Index Name") for it in node.get("Plans", ())}
    return node["Node Type"] == "Bitmap Heap Scan" and below <= {"job_tags", "job_metadata"}


def _is_a_walk(name: str, node: Node, above: tuple[Node, ...]) -> bool:
    nearest = next((it["Node Type"] for it in reversed(above) if it["Node Type"] != "LockRows"), None)
    return WALKS.get(name) == node["Relation Name"] and nearest == "Limit"


async def test_every_statement_keeps_to_its_indexes_on_tables_that_were_empty_when_it_was_planned(
    hot: db.Connection,
):
    assert await hot.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
    found = {
        f"{name} {number}": wrong
        for name in statement_names()
        if name not in COUNTS
        for number, sql in enumerate(texts(name))
        if (wrong := faults(name, (await explain(hot, sql))["Plan"]))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("SELECT * FROM jobyard.done WHERE result IS NULL", "Seq Scan on done"),
        ("SELECT * FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job", "Hash Join"),
        ("SELECT job FROM jobyard.done ORDER BY job, run", "reads all of done"),
        (
            "SELECT u FROM unnest($1::uuid[]) u WHERE NOT EXISTS (SELECT FROM jobyard.place p WHERE p.job = u)",
            "reads all of ready",
        ),
    ],
)
async def test_the_test_of_the_plans_sees_what_would_hurt(database: str, sql: str, fault: str):
    connection = await db.connect(database, hot=fault.startswith("reads"), name="test")
    await connection.execute(f"SET enable_nestloop = {'off' if 'Join' in fault else 'on'}")
    assert fault in faults("a new one", (await explain(connection, sql))["Plan"])
    await connection.close()


async def test_a_walk_for_the_next_row_reads_no_more_than_that_row(hot: db.Connection):
    await _fill(
        hot, "scheduled", "(job, run_at, lane, run, attempt, crashes) SELECT {id}, now(), 1, 1, 0, 0", 20_000
    )
    assert _buffers(await explain(hot, statement("next_due"), options="ANALYZE, BUFFERS, ")) < 10


async def test_a_claim_under_stale_statistics_takes_no_more_than_its_limit_and_reads_little(
    hot: db.Connection,
):
    """F25. The tables were analysed empty, then 100,000 rows came."""
    await hot.execute("ALTER TABLE jobyard.ready SET (autovacuum_enabled = off)")
    await hot.execute("ALTER TABLE jobyard.job SET (autovacuum_enabled = off)")
    lane, _ = await Lanes().id_of(hot, a_job().lane)
    worker = await dispatch.start_worker(hot, "w", ["email"], 8, LEASE)
    columns = (
        "(id, timeout_seconds, backoff_base, backoff_cap, lane, max_attempts, priority, type, queue, payload)"
    )
    pages = list[int]()
    for rows in (100, 100_000):
        await _fill(
            hot, "job", columns + " SELECT {id}, 60, 2, 60, 1, 5, 5, 'email', 'default', '{{}}'", rows
        )
        await _fill(hot, "ready", "(lane, run, attempt, crashes, job) SELECT 1, 1, 0, 0, {id}", rows)
        asked = (f"ARRAY[{lane}]", "ARRAY[0]", "10", str(worker), "30", "ARRAY[]::bigint[]")
        pages.append(_buffers(await explain(hot, statement("claim"), *asked, options="ANALYZE, BUFFERS, ")))
    assert await hot.fetchval("SELECT count(*) FROM jobyard.active") == 20
    assert await hot.fetchval("SELECT count(*) FROM jobyard.ready") == 100_080
    few, many = pages
    assert many < 1.5 * few < 1000, f"{many} pages for 10 of 100,000 jobs, {few} for 10 of 100"


@pytest.mark.parametrize("share", [0.02, pytest.param(1.0, marks=pytest.mark.soak)])
async def test_a_claim_does_not_feel_the_backlog_nor_the_dead_rows_of_a_long_transaction(
    scene: Scene, share: float
):
    """F26: a million jobs to come, 200,000 dead letters, 500,000 completed, and a transaction left open meanwhile."""
    await scene.add(100)
    worker = await scene.worker()
    job = (
        "(id, timeout_seconds, backoff_base, backoff_cap, lane, max_attempts, priority, type, queue, payload)"
    )
    values = "60, 2, 60, 1, 5, 5, 'email', 'default', '{{}}'"
    done = "(job, run, attempt, tenant, lease, worker, started_at, status, reason)"

    async def pages_of_a_claim(hint: int) -> int:
        asked = ("ARRAY[1]", f"ARRAY[{hint}]", "10", str(worker), "30", "ARRAY[]::bigint[]")
        return _buffers(await explain(scene.db, statement("claim"), *asked, options="ANALYZE, BUFFERS, "))

    alone = await pages_of_a_claim(0)
    async with scene.pool.acquire() as other, other.transaction(isolation="repeatable_read"):
        await other.fetchval("SELECT count(*) FROM jobyard.ready")
        for rows, table, into in (
            (1_000_000, "scheduled", "(job, run_at, lane, run, attempt, crashes) SELECT {id}, now() + interval '1 d', 1, 1, 0, 0"),
            (200_000, "done", done + " SELECT {id}, 1, 5, 1, -n, 1, now(), 'failed', 'exhausted'"),
            (500_000, "done", done + " SELECT {id}, 1, 1, 1, -n, 1, now(), 'completed', NULL"),
        ):  # fmt: skip
            await _fill(scene.db, "job", f"{job} SELECT {{id}}, {values}", int(share * rows))
            await _fill(scene.db, table, into, int(share * rows))
        last = 0
        for _ in range(max(20, int(share * 100))):
            await scene.add(1000)
            claimed = await scene.claim(worker, 1000, lanes=[1], hints=[last])
            await dispatch.settle(scene.db, [ending(attempt, Succeeded()) for attempt in claimed])
            last = claimed[-1].lease
        await scene.add(100)
        assert await pages_of_a_claim(last) <= 3 * alone
        assert await pages_of_a_claim(0) > 3 * alone, "the dead rows are there"
    assert await scene.db.fetchval("SELECT count(*) FROM jobyard.active") == 30


async def _fill(connection: db.Connection, table: str, into: str, rows: int) -> None:
    made = f"lpad(to_hex({rows}::bigint << 32 | n), 32, '0')::uuid"
    await connection.execute(
        f"INSERT INTO jobyard.{table} {into.format(id=made)} FROM generate_series(1, {rows}) n"
    )


def _buffers(explained: Node) -> int:
    """Pages touched by the statement and its parts; a part that another reads counts for both."""
    plan = explained["Plan"]
    parts = [
        plan,
        *(node for node, _ in nodes(plan) if node.get("Parent Relationship") in ("InitPlan", "SubPlan")),
    ]
    return sum(part["Shared Hit Blocks"] + part["Shared Read Blocks"] for part in parts)


# Statements


@dataclass
class Counted:
    """How many statements the connections have sent."""

    sent: list[str] = field(default_factory=list[str])

    def listen(self, connection: Any) -> None:
        connection.add_query_logger(lambda record: self.sent.append(record.query))

    async def of(self, action: Awaitable[Any]) -> int:
        await asyncio.sleep(0)  # a logger is called in the loop's next turn
        self.sent.clear()
        await action
        await asyncio.sleep(0)
        return len(self.sent)


@pytest.mark.parametrize("jobs", [2, 200])
async def test_a_flush_of_any_size_is_one_statement(scene: Scene, jobs: int):
    """A single statement needs no BEGIN and no COMMIT. A hand-back is BEGIN, lock, move, COMMIT."""
    counted = Counted()
    pool = await db.open_pool(scene.url, size=1, hot=True, name="test")
    async with pool.acquire() as connection:
        counted.listen(connection)
    counted.listen(scene.db)
    intake, worker = Intake(pool, scene.lanes, queue_limit=1000, timeout=10.0), await scene.worker()

    async def fresh_attempts() -> list[dispatch.Claimed]:
        await intake.create_many([a_job() for _ in range(jobs)])
        return await scene.claim(worker, jobs, lanes=[1])

    # Once before they are counted, so that each is prepared and the lane is known.
    first, *others = await fresh_attempts()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(first, Retry(60.0))])
    await dispatch.settle(scene.db, [ending(it, Succeeded()) for it in others])

    assert await counted.of(intake.create_many([a_job() for _ in range(jobs)])) == 1
    assert await counted.of(scene.claim(worker, jobs, lanes=[1])) == 1
    done = [ending(it, Succeeded()) for it in await fresh_attempts()]
    assert await counted.of(dispatch.settle(scene.db, done)) == 1
    back = [ending(it) for it in await fresh_attempts()]
    assert await counted.of(dispatch.hand_back(scene.db, scene.lanes, back)) == 4
    assert len(done) == len(back) == jobs
    await pool.close()


async def test_each_kind_of_change_writes_one_event_row_a_statement(scene: Scene):
    await scene.add(100)
    await scene.add(50, delay_seconds=60.0)
    attempts = await scene.claim(await scene.worker())
    await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt) for attempt in attempts[:10]])
    await dispatch.hand_back(scene.db, scene.lanes, [ending(it, Retry(9.0)) for it in attempts[10:20]])
    await dispatch.settle(scene.db, [ending(attempt, Succeeded()) for attempt in attempts[20:]])
    await upkeep.promote(scene.db)
    assert await scene.events() == [
        ("created", 100),
        ("created", 50),
        ("started", 100),
        ("released", 10),
        ("retry_scheduled", 10),
        ("completed", 80),
    ]


# Write-ahead log

EVENT_CTE = r"\), told AS \(\n(    .*\n)+"
JOBS, FLUSH = 1000, 100


async def test_the_log_of_events_costs_little_of_the_whole_life_of_a_job(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
):
    """Gate of DESIGN 9: at most 1.25 of the bytes of the same life without the log."""

    def without_events(name: str) -> str:
        return re.sub(EVENT_CTE, "", statement(name))

    assert all(
        "event" not in without_events(name).partition("WITH")[2] for name in ("create", "claim", "settle")
    )
    await scene.db.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect; SET synchronous_commit = on")
    worker = await scene.worker()
    await _wal_bytes_of_a_life(scene, worker)
    with_log = await _wal_bytes_of_a_life(scene, worker)
    monkeypatch.setattr(intake, "statement", without_events)
    monkeypatch.setattr(dispatch, "statement", without_events)
    without_log = await _wal_bytes_of_a_life(scene, worker)
    record_property("walBytesPerJob", with_log)
    assert 1 < with_log / without_log <= 1.25, (with_log, without_log)
    assert with_log < 1500


async def _wal_bytes_of_a_life(scene: Scene, worker: int) -> float:
    """Bytes a job, of the records about this database: others write to the same log meanwhile. Without page images,
    which depend on the last checkpoint, and without the few bytes of a commit."""
    before = await scene.db.fetchval("SELECT pg_current_wal_insert_lsn()")
    for _ in range(JOBS // FLUSH):
        await scene.add(FLUSH)
        attempts = await scene.claim(worker, FLUSH)
        await dispatch.settle(scene.db, [ending(attempt, Succeeded('{"sent":true}')) for attempt in attempts])
    written = await scene.db.fetchval(
        "SELECT sum(record_length - fpi_length)::int8"
        " FROM pg_get_wal_records_info($1::pg_lsn, pg_current_wal_flush_lsn())"
        " WHERE block_ref LIKE '%/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/%'",
        before,
    )
    return written / JOBS
