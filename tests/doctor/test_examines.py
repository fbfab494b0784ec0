"""What the doctor finds beside the schema: each check sees its fault, and names the fix."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from doctor.conftest import Examine
from jobyard import doctor
from jobyard.config import Settings
from jobyard.doctor import server, vacuum, wakeups
from jobyard.doctor.checks import CHECKS
from jobyard.doctor.finding import Finding, Level, failure, tell, warning
from jobyard.store import database as db
from jobyard.store import diagnosis, dispatch
from jobyard.store.diagnosis import ClockReading
from jobyard.store.sampling import take_sample

FACTS = {
    "version": "15.1", "is_standby": False, "is_read_only": False, "fsync": True, "full_page_writes": True,
    "synchronous_commit": "on", "autovacuum": True, "track_counts": True, "connections": 100, "connected": 10,
    "notification_queue": 0.0,
}  # fmt: skip


def the_server_is(monkeypatch: pytest.MonkeyPatch, **facts: object) -> None:
    """A production server, except for these facts; the one of the tests is set to be fast."""

    async def told(_: db.Connection) -> dict[str, object]:
        return FACTS | facts

    monkeypatch.setattr(diagnosis, "server", told)


def constantly(value: object) -> Callable[..., Awaitable[object]]:
    async def answer(*_: object) -> object:
        return value

    return answer


@pytest.mark.usefixtures("sampled")
async def test_a_database_in_order_has_one_good_finding_a_check(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
):
    the_server_is(monkeypatch)
    found = await examine()
    assert {name: [it.level for it in all_of_it] for name, all_of_it in found.items()} == {
        name: [Level.OK] for name in CHECKS
    }


@pytest.mark.parametrize(
    ("fact", "says"),
    [
        ({"is_standby": True}, "a standby or read-only"),
        ({"is_read_only": True}, "a standby or read-only"),
        ({"fsync": False}, "fsync is off"),
        ({"full_page_writes": False}, "full_page_writes is off"),
        ({"synchronous_commit": "off"}, "synchronous_commit is off"),
        ({"autovacuum": False}, "autovacuum is off"),
        ({"track_counts": False}, "track_counts is off"),
    ],
)
async def test_a_server_that_loses_jobs_or_bloats_is_a_failure(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, fact: dict[str, object], says: str
):
    the_server_is(monkeypatch, **fact)
    (finding,) = (await examine())["server"]
    assert (finding.level, says in finding.says) == (Level.FAILURE, True)
    assert finding.fix


async def test_the_facts_of_the_server_are_the_servers_own(examine: Examine, admin: db.Connection):
    facts = await diagnosis.server(admin)
    assert set(facts.keys()) == set(FACTS)
    assert facts["fsync"] is False, "the tests' server is set to be fast"
    assert facts["connected"] >= 1
    assert "fsync is off" in (await examine())["server"][0].says


async def test_a_server_that_is_too_old_is_a_failure(examine: Examine, monkeypatch: pytest.MonkeyPatch):
    the_server_is(monkeypatch)
    monkeypatch.setattr(server, "MINIMUM_SERVER", 990_000)
    (finding,) = (await examine())["server"]
    assert (finding.level, finding.fix) == (Level.FAILURE, "upgrade to 99 or newer")


async def test_few_connections_left_is_a_warning(examine: Examine, monkeypatch: pytest.MonkeyPatch):
    the_server_is(monkeypatch, connected=86)
    assert [(it.level, it.says) for it in (await examine())["connections"]] == [
        (Level.WARNING, "86 of 100 in use")
    ]


@pytest.mark.parametrize(
    ("ahead", "uncertain", "level"), [(3, 0.01, "warning"), (-3, 0.01, "warning"), (3, 2, "ok"), (1, 0, "ok")]
)
async def test_a_clock_is_warned_of_when_it_surely_differs(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, ahead: float, uncertain: float, level: str
):
    monkeypatch.setattr(diagnosis, "clock", constantly(ClockReading(ahead, uncertain)))
    assert [it.level for it in (await examine())["clock"]] == [level]


async def test_the_clock_is_read_as_the_difference_to_this_machine(
    admin: db.Connection, monkeypatch: pytest.MonkeyPatch
):
    import time as system

    real = system.time
    monkeypatch.setattr("jobyard.store.diagnosis.time.time", lambda: real() - 600)
    reading = await diagnosis.clock(admin)
    assert abs(reading.ahead - 600) <= 1 + reading.uncertain
    assert server.SKEW_SECONDS < 600


async def test_dead_rows_that_vacuum_does_not_remove_are_told_with_the_table(
    examine: Examine, admin: db.Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(vacuum, "DEAD_ROWS", 500)
    await admin.execute(
        "ALTER TABLE jobyard.event SET (autovacuum_enabled = off);"
        "INSERT INTO jobyard.event (tenant, kind, jobs, attempts) SELECT 1, 'x', '{}', '{}' FROM generate_series(1, 1000);"
        "DELETE FROM jobyard.event"
    )
    await admin.execute("SELECT pg_stat_force_next_flush()")
    (finding,) = (await examine())["dead rows"]
    assert finding.level is Level.WARNING
    assert "jobyard.event has 1,000 dead rows" in finding.says
    assert "never vacuumed" in finding.says
    assert "VACUUM jobyard.event" in str(finding.fix)


async def test_dead_rows_beside_twice_as_many_live_ones_are_autovacuums_own_business(
    examine: Examine, admin: db.Connection, monkeypatch: pytest.MonkeyPatch
):
    async def told(_: db.Connection) -> list[dict[str, object]]:
        return [{"name": "job", "live": 2001, "dead": 1000, "vacuumed_ago": None}]

    monkeypatch.setattr(vacuum, "DEAD_ROWS", 500)
    monkeypatch.setattr(diagnosis, "tables", told)
    assert [(it.level, it.says) for it in (await examine())["dead rows"]] == [(Level.OK, "1,000 in all")]


async def test_long_transactions_are_told_by_who_holds_them_and_never_by_their_text(
    examine: Examine, database: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(vacuum, "LONG_TRANSACTION_SECONDS", 0.0)
    holder = await db.connect(database, hot=False, name="somebody's report")
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT 'secret' FROM jobyard.job")
    pid = holder.get_server_pid()
    ours = [it for it in (await examine())["long transactions"] if f"pid {pid}," in it.says]
    await transaction.rollback()
    await holder.close()
    (finding,) = ours
    assert finding.level is Level.WARNING
    assert "somebody's report" in finding.says
    assert "idle in transaction" in finding.says
    assert f"pg_terminate_backend({pid})" in str(finding.fix)
    assert "secret" not in finding.says


async def test_inactive_slots_and_prepared_transactions_are_told(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
):
    held = [("prepared", "tx 1", None, 120.0, None), ("slot", "replica", "inactive", None, None)]
    monkeypatch.setattr(diagnosis, "horizon", constantly(held))
    prepared, slot = (await examine())["long transactions"]
    assert "ROLLBACK PREPARED 'tx 1'" in str(prepared.fix)
    assert "pg_drop_replication_slot('replica')" in str(slot.fix)


async def test_a_pooler_that_the_settings_do_not_know_is_found(
    examine: Examine, pgbouncer: str, database: str
):
    found = await examine(DATABASE_URL=pgbouncer)
    assert [it.level for it in found["pooler"]] == [Level.FAILURE, Level.FAILURE]
    assert "DATABASE_DIRECT_URL" in str(found["pooler"][0].fix)
    assert found["pooler"][1].fix == "set JOBYARD_POOLER=transaction"
    told = {"DATABASE_URL": pgbouncer, "DATABASE_DIRECT_URL": database, "JOBYARD_POOLER": "transaction"}
    assert [it.level for it in (await examine(**told))["pooler"]] == [Level.OK]


async def test_a_direct_address_is_not_taken_for_a_pooler(database: str):
    assert not await diagnosis.shares_sessions(database)


async def test_a_notification_arrives_on_a_direct_address_and_a_missing_one_is_told(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
):
    assert [it.level for it in (await examine())["notify"]] == [Level.OK]
    monkeypatch.setattr(diagnosis, "notification_arrives", constantly(False))
    (finding,) = (await examine())["notify"]
    assert (finding.level, "poll" in finding.says) == (Level.WARNING, True)


async def test_a_listener_elsewhere_is_not_heard(
    database: str, admin: db.Connection, server: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(diagnosis, "NOTIFY_SECONDS", 0.2)
    assert not await diagnosis.notification_arrives(server("postgres"), admin)
    assert await diagnosis.notification_arrives(database, admin)


async def test_what_somebody_else_says_on_the_channel_is_not_taken_for_the_answer(
    database: str, monkeypatch: pytest.MonkeyPatch
):
    class Elsewhere:
        """A connection whose notifications do not arrive, while somebody else's do."""

        async def execute(self, *_: object) -> None:
            other = await db.connect(database, hot=False, name="another doctor")
            await other.execute("SELECT pg_notify($1, 'another word')", diagnosis.CHANNEL)
            await other.close()

    monkeypatch.setattr(diagnosis, "NOTIFY_SECONDS", 0.3)
    assert not await diagnosis.notification_arrives(database, Elsewhere())  # type: ignore[arg-type] - it stands for one


async def test_a_notification_queue_that_fills_is_a_failure(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
):
    the_server_is(monkeypatch, notification_queue=2 * wakeups.QUEUE_SHARE)
    assert [it.level for it in (await examine())["notify"]] == [Level.FAILURE]


async def test_nobody_maintains_is_a_failure_and_an_old_sample_too(examine: Examine, admin: db.Connection):
    (never,) = (await examine())["maintainer"]
    assert (never.level, "ever" in never.says) == (Level.FAILURE, True)
    await take_sample(admin, 0)
    await admin.execute("UPDATE jobyard.sample SET at = at - interval '5 minutes'")
    (stale,) = (await examine())["maintainer"]
    assert (stale.level, re.search(r"for 3\d\d s", stale.says) is not None) == (Level.FAILURE, True)


async def test_a_type_that_no_worker_knows_is_told_while_jobs_of_it_wait(
    examine: Examine, admin: db.Connection
):
    await admin.execute(
        "INSERT INTO jobyard.lane (tenant, priority, suspect, queue, type) VALUES (1, 5, 0, 'default', 'report')"
    )
    await admin.execute(
        "INSERT INTO jobyard.ready (lane, run, attempt, crashes, job) VALUES (1, 1, 0, 0, $1)", uuid4()
    )
    await take_sample(admin, 0)
    (finding,) = (await examine())["workers"]
    assert finding.says == "1 job of type 'report' ready, and no worker knows that type"
    await dispatch.start_worker(admin, "w", ["report"], 4, 30)
    assert [it.says for it in (await examine())["workers"]] == ["1 alive, 4 slots"]


async def test_a_check_that_cannot_be_made_is_a_finding_and_the_others_go_on(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
):
    async def broken(_: db.Connection) -> None:
        raise db.asyncpg.InsufficientPrivilegeError("permission denied for view x")

    monkeypatch.setattr(diagnosis, "tables", broken)
    found = await examine()
    (finding,) = found["dead rows"]
    assert (finding.level, "pg_monitor" in str(finding.fix)) == (Level.FAILURE, True)
    assert set(found) == set(CHECKS)


# What is told


def test_text_of_others_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]):
    tell([warning("a", "\x1b[31mred\u202e", "fix\x07")], as_json=False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"\x1b[31mred\u202e" in shown


def test_json_is_one_document_and_people_get_the_fix_beside_each_finding(capsys: pytest.CaptureFixture[str]):
    findings = [Finding("a", Level.OK, "fine"), failure("b", "it is broken", "mend it")]
    tell(findings, as_json=True)
    assert json.loads(capsys.readouterr().out)["findings"][1] == {
        "check": "b", "level": "failure", "says": "it is broken", "fix": "mend it",
    }  # fmt: skip
    tell(findings, as_json=False)
    shown = capsys.readouterr().out
    assert "-> mend it" in shown
    assert "1 wrong, 0 to look at, 1 in order" in shown


def test_a_database_that_cannot_be_reached_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    settings = Settings.read({"DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/none"})
    assert doctor.examine(settings) == 1
    assert doctor.verify(settings) == 1
    told = capsys.readouterr().err
    assert told.count("cannot reach PostgreSQL at postgresql://me:***@127.0.0.1:1/none") == 2
    assert "secret" not in told


def test_without_an_address_the_database_of_dev_is_looked_at(tmp_path, capsys: pytest.CaptureFixture[str]):
    assert doctor.examine(Settings.read({"JOBYARD_HOME": str(tmp_path)})) == 1
    told = capsys.readouterr().err
    assert f"no PostgreSQL of `jobyard dev` runs in {tmp_path}" in told
    assert "JOBYARD_HOME" in told


def test_the_exit_code_tells_a_failure(database: str, capsys: pytest.CaptureFixture[str]):
    assert doctor.examine(Settings.read({"DATABASE_URL": database}), as_json=True) == 1
    levels = {it["check"]: it["level"] for it in json.loads(capsys.readouterr().out)["findings"]}
    assert levels["maintainer"] == "failure"
    assert levels["schema"] == "ok"
