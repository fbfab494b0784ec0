"""The doctor knows a schema that is not this release's, and says how to mend it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from doctor.conftest import Examine
from jobyard.doctor.finding import Level
from jobyard.store import database as db
from jobyard.store import diagnosis

EXPECTED = Path(diagnosis.__file__).parent / "schema.txt"


async def test_the_expected_schema_is_what_the_migrations_make(admin: db.Connection):
    actual = "\n".join(await diagnosis.actual_schema(admin)) + "\n"
    if os.environ.get("JOBYARD_RENEW_SCHEMA"):
        EXPECTED.write_text(actual)
    assert actual == EXPECTED.read_text(), "run this test with JOBYARD_RENEW_SCHEMA=1"


async def test_a_fresh_database_is_in_order(examine: Examine):
    found = await examine()
    assert [it.level for it in (*found["migrations"], *found["schema"])] == [Level.OK, Level.OK]


async def test_a_missing_index_is_found_and_its_fix_mends_it(examine: Examine, admin: db.Connection):
    await admin.execute("DROP INDEX jobyard.active_worker")
    (finding,) = (await examine())["schema"]
    assert finding.level is Level.FAILURE
    assert finding.fix == "CREATE INDEX CONCURRENTLY active_worker ON jobyard.active USING btree (worker);"
    await admin.execute(finding.fix)
    assert [it.level for it in (await examine())["schema"]] == [Level.OK]


async def test_an_invalid_index_is_found_and_its_fix_mends_it(examine: Examine, admin: db.Connection):
    await admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'jobyard.done_failed'::regclass"
    )
    invalid = [it for it in (await examine())["schema"] if "is invalid" in it.says]
    assert [it.fix for it in invalid] == ["REINDEX INDEX CONCURRENTLY jobyard.done_failed;"]
    await admin.execute(str(invalid[0].fix))
    assert [it.level for it in (await examine())["schema"]] == [Level.OK]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("ALTER TABLE jobyard.job DROP COLUMN trace", "column job.trace text"),
        ("ALTER TABLE jobyard.active ALTER worker DROP NOT NULL", "column active.worker bigint not null"),
        ("DROP TABLE jobyard.sample", "column sample.at timestamp with time zone not null"),
        ("ALTER TABLE jobyard.ready RESET (autovacuum_vacuum_threshold)", "option ready.autovacuum_vacuum_threshold=20000"),
        ("ALTER TABLE jobyard.done DROP CONSTRAINT done_status_check", "check done CHECK"),
        ("ALTER SEQUENCE jobyard.ready_seq_seq CACHE 50", "sequence ready_seq_seq cache 1"),
        ("DROP FUNCTION jobyard.wake", "function wake "),
    ],
)  # fmt: skip
async def test_every_kind_of_drift_is_found(examine: Examine, admin: db.Connection, change: str, line: str):
    await admin.execute(change)
    missing = [it for it in (await examine())["schema"] if it.says.startswith(f"missing: {line}")]
    assert len(missing) == 1
    assert missing[0].level is Level.FAILURE
    assert "jobyard migrate" in str(missing[0].fix)


async def test_what_users_put_there_is_told_and_is_no_failure(examine: Examine, admin: db.Connection):
    await admin.execute(
        "CREATE INDEX mine ON jobyard.job (type); ALTER TABLE jobyard.job ADD COLUMN mine int"
    )
    levels = {it.says: it.level for it in (await examine())["schema"]}
    assert set(levels.values()) == {Level.WARNING}
    assert "not of this release: column job.mine integer" in levels
    assert any(says.startswith("an index of your own: CREATE INDEX mine") for says in levels)


async def test_a_database_that_nobody_migrated_says_so_in_few_lines(examine: Examine, admin: db.Connection):
    await admin.execute("DROP SCHEMA jobyard CASCADE")
    found = await examine()
    (finding,) = found["migrations"]
    assert re.match(r"not applied yet: 0001_jobs, 0002_sample", finding.says)
    assert finding.fix == "run `jobyard migrate`"
    assert len(found["schema"]) <= 11


async def test_an_edited_migration_and_a_newer_release_are_told(examine: Examine, admin: db.Connection):
    await admin.execute("INSERT INTO jobyard.migration (number, name, digest) VALUES (999, 'later', '')")
    (newer,) = (await examine())["migrations"]
    assert (newer.level, "a newer release" in newer.says + str(newer.fix)) == (Level.WARNING, True)
    await admin.execute("UPDATE jobyard.migration SET digest = 'x' WHERE number = 1")
    (edited,) = (await examine())["migrations"]
    assert edited.level is Level.FAILURE
    assert "0001_jobs was applied from another text" in edited.says
