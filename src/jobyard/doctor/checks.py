"""All checks, in the order in which an operator would ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg

from jobyard.doctor import fleet, schema, server, vacuum, wakeups
from jobyard.doctor.finding import Finding, failure, is_failure, ok, tell
from jobyard.doctor.patient import Patient
from jobyard.process import FAILED, OK
from jobyard.store.database import GONE, why

Check = Callable[[Patient], Awaitable[list[Finding]]]

CHECKS: dict[str, Check] = {
    "server": server.server,
    "connections": server.connections,
    "clock": server.clock,
    "migrations": schema.migrations,
    "schema": schema.drift,
    "pooler": wakeups.pooler,
    "notify": wakeups.notify,
    "dead rows": vacuum.dead_rows,
    "long transactions": vacuum.long_transactions,
    "maintainer": fleet.maintainer,
    "workers": fleet.workers,
}


async def examine(patient: Patient, as_json: bool) -> int:
    found = await findings(patient)
    tell(found, as_json=as_json)
    return FAILED if is_failure(found) else OK


async def findings(patient: Patient) -> list[Finding]:
    """What every check found; at least one finding each."""
    return [finding for name, check in CHECKS.items() for finding in await _run(name, check, patient)]


async def _run(name: str, check: Check, patient: Patient) -> list[Finding]:
    """What the check found. One that cannot be made is a finding too, and the others go on."""
    try:
        return await check(patient) or [ok(name, "in order")]
    except asyncpg.InsufficientPrivilegeError as refused:
        fix = "run the doctor as the owner of the schema, with the role pg_monitor: GRANT pg_monitor TO that_user"
        return [failure(name, f"could not be looked at: {refused}", fix)]
    except (*GONE, asyncpg.PostgresError) as trouble:
        return [
            failure(
                name, f"could not be looked at: {why(trouble)}", "look at the server's log, then try again"
            )
        ]
