"""Is it a server that keeps what it was given, with room and the right time?"""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg

from jobyard.doctor.finding import Finding, failure, ok, warning
from jobyard.doctor.patient import Patient
from jobyard.store import diagnosis
from jobyard.store.database import MINIMUM_SERVER

SKEW_SECONDS = 2.0
CONNECTIONS_SHARE = 0.85
"""Of those the server takes; above it, a deploy that starts new processes beside the old ones may find none."""

DURABLE_COMMITS = ("on", "local", "remote_write", "remote_apply")


async def server(patient: Patient) -> list[Finding]:
    facts = await diagnosis.server(patient.connection)
    return list(_faults_of_server(facts, patient)) or [
        ok("server", f"PostgreSQL {facts['version']}, durable")
    ]


def _faults_of_server(facts: asyncpg.Record, patient: Patient) -> Iterator[Finding]:
    version = patient.connection.get_server_version()
    if version.major < MINIMUM_SERVER // 10_000:
        yield failure(
            "server",
            f"PostgreSQL {facts['version']} is older than Jobyard works with",
            f"upgrade to {MINIMUM_SERVER // 10_000} or newer",
        )
    if facts["is_standby"] or facts["is_read_only"]:
        yield failure(
            "server",
            "it is a standby or read-only, so no job can be created",
            "point DATABASE_URL at the primary",
        )
    for setting in ("fsync", "full_page_writes"):
        if not facts[setting]:
            yield failure(
                "server",
                f"{setting} is off: a power cut loses accepted jobs, and perhaps the database",
                f"ALTER SYSTEM SET {setting} = on; SELECT pg_reload_conf()",
            )
    if facts["synchronous_commit"] not in DURABLE_COMMITS:
        yield failure(
            "server",
            "synchronous_commit is off: a crash loses jobs that were accepted",
            "set synchronous_commit to on for this database or user",
        )
    for setting in ("autovacuum", "track_counts"):
        if not facts[setting]:
            yield failure(
                "server",
                f"{setting} is off: tables whose rows live for milliseconds will bloat within the hour",
                f"ALTER SYSTEM SET {setting} = on; SELECT pg_reload_conf()",
            )


async def connections(patient: Patient) -> list[Finding]:
    facts = await diagnosis.server(patient.connection)
    used, most = facts["connected"], facts["connections"]
    says = f"{used} of {most} in use"
    if used > CONNECTIONS_SHARE * most:
        return [
            warning(
                "connections",
                says,
                "raise max_connections, run fewer processes, or put a pooler before the API (JOBYARD_POOLER)",
            )
        ]
    return [ok("connections", says)]


async def clock(patient: Patient) -> list[Finding]:
    """Times are the database's: a difference moves no job, but makes the logs of two machines hard to compare."""
    reading = await diagnosis.clock(patient.connection)
    says = f"the database's clock is {abs(reading.ahead):.1f} s {'ahead of' if reading.ahead > 0 else 'behind'} this machine's"
    if abs(reading.ahead) - reading.uncertain > SKEW_SECONDS:
        return [
            warning(
                "clock",
                says,
                "no job runs early or late by it, but logs and runAt given by clients are judged by another clock: "
                "set up NTP on both",
            )
        ]
    return [ok("clock", says)]
