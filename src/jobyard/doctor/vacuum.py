"""Are dead rows removed, and does anybody keep them from being?"""

from __future__ import annotations

from jobyard.doctor.finding import Finding, ok, warning
from jobyard.doctor.patient import Patient
from jobyard.store import diagnosis

DEAD_ROWS = 100_000
"""Of one table, five times what autovacuum is told to wait for there."""

DEAD_SHARE = 0.5
"""Of a table's rows, for the large tables that autovacuum visits by share."""

LONG_TRANSACTION_SECONDS = 60.0


async def dead_rows(patient: Patient) -> list[Finding]:
    findings: list[Finding] = []
    total = 0
    for table in await diagnosis.tables(patient.connection):
        total += table["dead"]
        if table["dead"] < DEAD_ROWS or table["dead"] < DEAD_SHARE * table["live"]:
            continue
        ago = table["vacuumed_ago"]
        last = "it was never vacuumed" if ago is None else f"it was last vacuumed {ago:,.0f} s ago"
        findings.append(
            warning(
                "dead rows",
                f"jobyard.{table['name']} has {table['dead']:,} dead rows beside {table['live']:,} live ones; {last}",
                "look at long transactions below, which keep vacuum from removing them; else give autovacuum more "
                f"workers, and run VACUUM jobyard.{table['name']} once",
            )
        )
    return findings or [ok("dead rows", f"{total:,} in all")]


async def long_transactions(patient: Patient) -> list[Finding]:
    holders = await diagnosis.horizon(patient.connection, LONG_TRANSACTION_SECONDS)
    return [_held(kind, who, state, seconds, pid) for kind, who, state, seconds, pid in holders] or [
        ok("long transactions", f"none is older than {LONG_TRANSACTION_SECONDS:g} s")
    ]


def _held(kind: str, who: str, state: str | None, seconds: float | None, pid: int | None) -> Finding:
    check = "long transactions"
    match kind:
        case "transaction":
            return warning(
                check,
                f"{who} has had one open for {seconds:,.0f} s ({state}): no row that died since can be removed",
                f"end it in its program, or SELECT pg_terminate_backend({pid}); set "
                "idle_in_transaction_session_timeout",
            )
        case "prepared":
            return warning(
                check,
                f"the prepared transaction {who!r} has been open for {seconds:,.0f} s",
                f"COMMIT PREPARED or ROLLBACK PREPARED {who!r}",
            )
        case _:
            return warning(
                check,
                f"the replication slot {who!r} ({state}) holds back vacuum",
                f"let its consumer catch up, or SELECT pg_drop_replication_slot({who!r})",
            )
