"""Do workers hear at once of what they can do? Without it they poll each second: a delay, never a loss."""

from __future__ import annotations

from jobyard.doctor.finding import Finding, failure, ok, warning
from jobyard.doctor.patient import Patient
from jobyard.store import diagnosis

QUEUE_SHARE = 0.1
"""Of the server's notification queue; it fills only behind a listener that does not read."""


async def pooler(patient: Patient) -> list[Finding]:
    findings: list[Finding] = []
    if await diagnosis.shares_sessions(patient.direct_url):
        findings.append(
            failure(
                "pooler",
                "workers, maintainers and listeners reach the database through a transaction pooler: wake-ups do not "
                "arrive, and their planner settings get lost",
                "set DATABASE_DIRECT_URL to an address of the same database that passes no pooler",
            )
        )
    if patient.settings.pooler is None and await diagnosis.shares_sessions(patient.url):
        findings.append(
            failure(
                "pooler",
                "DATABASE_URL passes a transaction pooler, and the API does not know",
                "set JOBYARD_POOLER=transaction",
            )
        )
    return findings or [ok("pooler", "none in the way")]


async def notify(patient: Patient) -> list[Finding]:
    usage = (await diagnosis.server(patient.connection))["notification_queue"]
    findings: list[Finding] = []
    if usage > QUEUE_SHARE:
        findings.append(
            failure(
                "notify",
                f"the notification queue is {usage:.0%} full: when it is full, no job can be created any more",
                "find the listener that does not read (a session that listens and is idle in a transaction), and end it",
            )
        )
    if not await diagnosis.notification_arrives(patient.direct_url, patient.connection):
        findings.append(
            warning(
                "notify",
                f"a notification did not arrive within {diagnosis.NOTIFY_SECONDS:g} s; workers poll each second "
                "instead",
                "set DATABASE_DIRECT_URL to an address without a pooler or proxy in between",
            )
        )
    return findings or [ok("notify", "arrives")]
