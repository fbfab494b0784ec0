"""Is anybody there to do what waits?"""

from __future__ import annotations

from jobyard.doctor.finding import Finding, failure, ok, warning
from jobyard.doctor.patient import Patient
from jobyard.store import overview
from jobyard.store.sampling import last_sample

STALE_SECONDS = 60.0
"""Of a sample that a maintainer takes every ten."""


async def maintainer(patient: Patient) -> list[Finding]:
    sample = await last_sample(patient.connection)
    if sample is not None and sample.age < STALE_SECONDS:
        return [ok("maintainer", f"was there {sample.age:.0f} s ago")]
    since = "ever" if sample is None else f"for {sample.age:,.0f} s"
    return [
        failure(
            "maintainer",
            f"none has been there {since}: delayed jobs and retries do not start, and what a dead worker left is not "
            "taken back",
            "start `jobyard maintain`, and look at its log",
        )
    ]


async def workers(patient: Patient) -> list[Finding]:
    totals = await overview.worker_totals(patient.connection)
    known = await overview.workers_by_type(patient.connection)
    sample = await last_sample(patient.connection)
    waiting: dict[str, int] = {}
    for it in sample.types if sample else []:
        if it.ready and not known.get(it.type):
            waiting[it.type] = waiting.get(it.type, 0) + it.ready
    return [
        warning(
            "workers",
            f"{jobs:,} {'job' if jobs == 1 else 'jobs'} of type {type!r} ready, and no worker knows that type",
            "start a worker whose --app has a handler for it",
        )
        for type, jobs in sorted(waiting.items())
    ] or [ok("workers", f"{totals['live']} alive, {totals['slots']} slots")]
