"""The log is read without gaps (F27): whatever commits, in whatever order, each fact is read, and once by one reader."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest

from databases import copied_database
from jobyard.ids import new_job_id
from jobyard.store import database as db
from jobyard.store import log_reader
from jobyard.store.database import Connection, Pool
from jobyard.store.log_reader import SHARDS, Fact, Place, Turn

INSERT = """
INSERT INTO jobyard.event (tenant, kind, jobs, attempts, leases) VALUES (1, $1, $2, $3, $4)
"""


async def say(connection: Connection, kind: str, *jobs: UUID, lease: int = 0) -> None:
    await connection.execute(INSERT, kind, list(jobs), [1] * len(jobs), [lease] * len(jobs))


class Reader:
    """Reads all that there is, each time it is asked, and remembers it."""

    def __init__(self, connection: Connection) -> None:
        self.db = connection
        self.read: list[Fact] = []

    async def catch_up(self, rows: int = log_reader.PAGE_ROWS) -> list[Fact]:
        """What is new."""
        before = len(self.read)
        await log_reader.make_tick(self.db, 0.0)
        while (turn := await log_reader.take(self.db)) is not None:
            page = await log_reader.read(self.db, turn, rows)
            self.read += page.facts
            assert await log_reader.mark(self.db, turn, page.next) == set(turn.shards)
        return self.read[before:]

    def kinds(self) -> list[str]:
        return [fact.kind for fact in self.read]


@pytest.fixture
async def reader(connection: Connection) -> Reader:
    await log_reader.begin(connection)
    return Reader(connection)


@asynccontextmanager
async def writer(url: str) -> AsyncIterator[Connection]:
    connection = await db.connect(url, hot=True, name="writer")
    yield connection
    await connection.close()


async def test_what_happened_before_the_log_was_first_read_is_not_read(connection: Connection) -> None:
    await say(connection, "before", new_job_id())
    await log_reader.begin(connection)
    await say(connection, "after", new_job_id())
    reader = Reader(connection)
    await reader.catch_up()
    assert reader.kinds() == ["after"]
    await log_reader.begin(connection)
    assert await reader.catch_up() == []


async def test_a_transaction_that_commits_after_a_later_one_was_read_is_read(
    reader: Reader, database: str
) -> None:
    async with writer(database) as slow, writer(database) as fast:
        transaction = slow.transaction()
        await transaction.start()
        await say(slow, "slow", new_job_id())
        await say(fast, "fast", new_job_id())
        await reader.catch_up()
        assert reader.kinds() == ["fast"]
        await transaction.commit()
    await reader.catch_up()
    assert reader.kinds() == ["fast", "slow"]


async def test_a_long_transaction_holds_nobody_up_and_is_read_when_it_commits(
    reader: Reader, database: str
) -> None:
    async with writer(database) as long, writer(database) as other:
        transaction = long.transaction()
        await transaction.start()
        await say(long, "long", new_job_id())
        for number in range(5):
            await say(other, f"other {number}", new_job_id())
            assert [fact.kind for fact in await reader.catch_up()] == [f"other {number}"]
        await transaction.commit()
    assert [fact.kind for fact in await reader.catch_up()] == ["long"]


async def test_what_was_rolled_back_is_never_read(reader: Reader, database: str) -> None:
    async with writer(database) as undone:
        transaction = undone.transaction()
        await transaction.start()
        await say(undone, "undone", new_job_id())
        await say(reader.db, "done", new_job_id())
        await reader.catch_up()
        await transaction.rollback()
    await reader.catch_up()
    assert reader.kinds() == ["done"]


async def test_what_a_subtransaction_wrote_is_read(reader: Reader) -> None:
    async with reader.db.transaction():
        async with reader.db.transaction():
            await say(reader.db, "inner", new_job_id())
        await say(reader.db, "outer", new_job_id())
    await reader.catch_up()
    assert reader.kinds() == ["inner", "outer"]


@pytest.mark.parametrize("seed", range(3))
async def test_under_random_interleavings_nothing_is_missed_or_doubled_and_each_job_keeps_its_order(
    reader: Reader, database: str, seed: int
) -> None:
    chance = random.Random(seed)
    written: dict[UUID, list[int]] = {}

    async def write(number: int) -> None:
        """A writer with jobs of its own, whose facts are in order, some of them in transactions that take a while."""
        mine = random.Random(f"{seed} {number}")
        async with writer(database) as connection:
            for _ in range(25):
                job = new_job_id()
                told: list[int] = []
                for lease in range(1, mine.randint(2, 4)):
                    transaction = connection.transaction()
                    await transaction.start()
                    await say(connection, "fact", job, lease=lease)
                    for _ in range(mine.choice([0, 0, 1, 5])):
                        await asyncio.sleep(0)
                        await connection.fetchval("SELECT 1")
                    if mine.random() < 0.2:
                        await transaction.rollback()
                    else:
                        await transaction.commit()
                        told.append(lease)
                written[job] = told

    writers = [asyncio.create_task(write(number)) for number in range(6)]
    while not all(task.done() for task in writers):
        await reader.catch_up(rows=chance.choice([1, 3, 200]))
    await asyncio.gather(*writers)
    await reader.catch_up()
    read: dict[UUID, list[int]] = {}
    for fact in reader.read:
        read.setdefault(fact.job, []).append(fact.lease)
    assert read == {job: told for job, told in written.items() if told}


async def test_a_reader_that_did_not_mark_its_page_has_it_read_again_the_same(reader: Reader) -> None:
    jobs = [new_job_id() for _ in range(7)]
    for job in jobs:
        await say(reader.db, "fact", job)
    await log_reader.make_tick(reader.db, 0.0)
    turn = await log_reader.take(reader.db)
    assert turn is not None
    first = await log_reader.read(reader.db, turn, 3)
    # It was killed: its time passes.
    assert await log_reader.take(reader.db) is None
    await reader.db.execute("UPDATE jobyard.relay SET held_until = '-infinity'")
    again = await log_reader.take(reader.db)
    assert again is not None
    assert (await log_reader.read(reader.db, again, 3)).facts == first.facts
    assert await log_reader.mark(reader.db, turn, first.next) == set(), "its turn is over"
    assert await log_reader.mark(reader.db, again, first.next) == set(range(SHARDS))
    await reader.catch_up(rows=3)
    assert [fact.job for fact in first.facts] + [fact.job for fact in reader.read] == jobs


async def test_shards_are_read_side_by_side_and_each_job_by_one(reader: Reader, pool: Pool) -> None:
    jobs = [new_job_id() for _ in range(60)]
    await say(reader.db, "fact", *jobs)
    await log_reader.make_tick(reader.db, 0.0)
    turns: list[Turn] = []
    for _ in range(SHARDS):
        turn = await log_reader.take(reader.db, 1)
        assert turn is not None
        turns.append(turn)
    assert await log_reader.take(reader.db) is None
    pages = [await log_reader.read(reader.db, turn) for turn in turns]
    assert sorted(fact.job for page in pages for fact in page.facts) == sorted(jobs)
    assert all(len(page.facts) > 3 for page in pages)


async def test_a_page_ends_within_a_tick_and_goes_on_there(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "PAGE_FACTS", 10)
    jobs = [new_job_id() for _ in range(40)]
    for at in range(0, 40, 8):
        await say(reader.db, "fact", *jobs[at : at + 8])
    await log_reader.make_tick(reader.db, 0.0)
    turn = await log_reader.take(reader.db)
    assert turn is not None
    page = await log_reader.read(reader.db, turn)
    assert len(page.facts) == 16
    assert page.next.upto is not None
    await log_reader.mark(reader.db, turn, Place(*turn.place))
    await reader.catch_up()
    assert [fact.job for fact in reader.read] == jobs


async def test_nothing_is_written_while_nothing_happens(reader: Reader) -> None:
    await say(reader.db, "fact", new_job_id())
    await reader.catch_up()
    async with reader.db.transaction():
        await reader.catch_up()
        assert await reader.db.fetchval("SELECT pg_current_xact_id_if_assigned()") is None


async def test_the_lag_is_that_of_the_first_fact_that_somebody_has_not_passed(reader: Reader) -> None:
    assert await log_reader.lag(reader.db) == 0.0
    await say(reader.db, "fact", new_job_id())
    await log_reader.make_tick(reader.db, 0.0)
    await reader.db.execute("UPDATE jobyard.tick SET at = at - interval '100 s' WHERE id > 1")
    assert 100 <= await log_reader.lag(reader.db) < 200
    await reader.catch_up()
    assert await log_reader.lag(reader.db) == 0.0


async def test_ticks_that_all_have_passed_are_deleted_and_no_others(reader: Reader) -> None:
    for _ in range(4):
        await say(reader.db, "fact", new_job_id())
        await reader.catch_up()
    await say(reader.db, "last", new_job_id())
    await log_reader.make_tick(reader.db, 0.0)
    assert await log_reader.delete_ticks(reader.db) == 4
    await reader.catch_up()
    assert reader.kinds()[-1] == "last"


# A restore into another cluster, where transaction ids are others


@pytest.fixture
def elsewhere(server: Callable[[str], str], template: str) -> Iterator[str]:
    with copied_database(server, template) as url:
        yield url


async def restored(url: str, connection: Connection, away: int = 7) -> None:
    """As a dump of `connection`'s database is read into that of `url`: every row is written by a transaction of there, and
    the cluster is another. `away`: as if its transaction ids were so much further on, or behind."""
    target = await asyncpg.connect(url)
    for table in ("event", "tick", "relay", "log_epoch"):
        rows = await connection.fetch(f"SELECT * FROM jobyard.{table}")
        columns = list(rows[0].keys())
        text = ", ".join(f"${number + 1}::text::{_type(table, name)}" for number, name in enumerate(columns))
        for row in await connection.fetch(
            f"SELECT {', '.join(f'{name}::text' for name in columns)} FROM jobyard.{table}"
        ):
            await target.execute(
                f"INSERT INTO jobyard.{table} ({', '.join(columns)}) OVERRIDING SYSTEM VALUE VALUES ({text})",
                *row,
            )
    await target.execute(
        "SELECT setval(pg_get_serial_sequence('jobyard.event', 'seq'), (SELECT max(seq) FROM jobyard.event))"
    )
    await target.execute("UPDATE jobyard.log_epoch SET cluster = 42")
    # The ids of the other cluster: all of the log, and of the ticks, by so much.
    await target.execute(f"UPDATE jobyard.event SET xid = (xid::text::bigint + {away})::text::xid8")
    for row in await target.fetch(
        "SELECT id, pg_snapshot_xmin(snap)::text::bigint AS low, pg_snapshot_xmax(snap)::text::bigint AS high,"
        " ARRAY(SELECT pg_snapshot_xip(snap)::text::bigint) AS open FROM jobyard.tick"
    ):
        moved = ",".join(str(xid + away) for xid in row["open"])
        await target.execute(
            f"UPDATE jobyard.tick SET snap = '{row['low'] + away}:{row['high'] + away}:{moved}' WHERE id = {row['id']}"
        )
    await target.close()


def _type(table: str, column: str) -> str:
    return {
        ("event", "jobs"): "uuid[]", ("event", "attempts"): "int[]", ("event", "details"): "text[]",
        ("event", "leases"): "bigint[]", ("event", "xid"): "xid8", ("event", "at"): "timestamptz",
        ("event", "kind"): "text", ("event", "tenant"): "int", ("tick", "snap"): "pg_snapshot",
        ("tick", "at"): "timestamptz", ("relay", "shard"): "smallint", ("relay", "held_until"): "timestamptz",
        ("log_epoch", "one"): "boolean", ("log_epoch", "seen"): "pg_snapshot", ("log_epoch", "seen_at"): "timestamptz",
    }.get((table, column), "bigint")  # fmt: skip


@pytest.mark.parametrize("away", [1_000_000, -300], ids=["ids further on", "ids behind"])
async def test_after_a_restore_into_another_cluster_nothing_is_missed_and_all_that_follows_is_read_once(
    reader: Reader, elsewhere: str, away: int
) -> None:
    for number in range(3):
        await say(reader.db, f"read {number}", new_job_id())
        await reader.catch_up()
    await say(reader.db, "not read", new_job_id())
    # What was read long before the last tick is known to be read.
    await reader.db.execute("UPDATE jobyard.event SET at = at - interval '1 hour' WHERE kind <> 'not read'")
    await restored(elsewhere, reader.db, away)
    async with writer(elsewhere) as there:
        await say(there, "before it was noticed", new_job_id())
        await log_reader.begin(there)
        await log_reader.begin(there)
        second = Reader(there)
        await second.catch_up(rows=1)
        assert second.kinds() == ["not read", "before it was noticed"]
        for _ in range(3):
            await say(there, "then", new_job_id())
            await second.catch_up()
        assert second.kinds()[2:] == ["then"] * 3


async def test_after_a_restore_what_was_read_just_before_is_read_again(
    reader: Reader, elsewhere: str
) -> None:
    await say(reader.db, "just read", new_job_id())
    await reader.catch_up()
    await restored(elsewhere, reader.db)
    async with writer(elsewhere) as there:
        await log_reader.begin(there)
        second = Reader(there)
        await second.catch_up()
        assert second.read == reader.read


async def test_an_upgraded_cluster_that_kept_its_transaction_ids_goes_on_where_it_was(reader: Reader) -> None:
    await say(reader.db, "read", new_job_id())
    await reader.catch_up()
    await say(reader.db, "not read", new_job_id())
    await reader.db.execute("UPDATE jobyard.log_epoch SET cluster = 42")
    await log_reader.begin(reader.db)
    await reader.catch_up()
    assert reader.kinds() == ["read", "not read"]
    assert await reader.db.fetchval("SELECT cluster <> 42 FROM jobyard.log_epoch")
