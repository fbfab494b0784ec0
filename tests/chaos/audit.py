"""Compares what clients were told and what handlers wrote down with what Jobyard says became of the jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from jobyard.store.database import Connection

SHOWN = 10

VIOLATIONS: Mapping[str, str] = {
    "lost: accepted, and there is no such job, or it stands in no place": """
        SELECT a.job FROM chaos.accepted a
        WHERE NOT EXISTS (SELECT FROM jobyard.job j WHERE j.id = a.job)
           OR NOT EXISTS (SELECT FROM jobyard.place p WHERE p.job = a.job)""",
    "not final: accepted, and neither completed nor failed after the wait": """
        SELECT a.job FROM chaos.accepted a
        WHERE NOT EXISTS (SELECT FROM jobyard.done d WHERE d.job = a.job)""",
    "two outcomes: a run of the job ended twice": """
        SELECT job FROM (SELECT unnest(jobs) AS job FROM jobyard.event WHERE kind IN ('completed', 'failed')) e
        GROUP BY job HAVING count(*) > 1 + (SELECT count(*) FROM jobyard.redrive r WHERE r.job = e.job)""",
    "changed: a client has seen another final state": """
        SELECT s.job FROM chaos.seen s JOIN jobyard.done d ON d.job = s.job AND d.run = 1 WHERE d.status <> s.status""",
    "done twice: what a transaction did is there more than once": """
        SELECT job FROM chaos.payment GROUP BY job, run HAVING count(*) > 1""",
    "done, and not completed: what a transaction did is there, and the job is not completed": """
        SELECT p.job FROM chaos.payment p
        WHERE NOT EXISTS (SELECT FROM jobyard.done d
                          WHERE d.job = p.job AND d.run = p.run AND d.status = 'completed')""",
    "completed, and not done: the job is completed, and what its transaction did is not there": """
        SELECT d.job FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job
        WHERE j.type = 'payment' AND d.status = 'completed'
          AND NOT EXISTS (SELECT FROM chaos.payment p WHERE p.job = d.job AND p.run = d.run)""",
    "completed, and never started": """
        SELECT d.job FROM jobyard.done d
        WHERE d.status = 'completed' AND NOT EXISTS (SELECT FROM chaos.start s WHERE s.job = d.job AND s.run = d.run)""",
    "started twice under one lease": """
        SELECT job FROM chaos.start GROUP BY job, lease HAVING count(DISTINCT once) > 1""",
    "started under a lease that is nowhere on record": """
        SELECT DISTINCT s.job FROM chaos.start s
        WHERE NOT EXISTS (SELECT FROM jobyard.attempt a WHERE a.job = s.job AND a.lease = s.lease)
          AND NOT EXISTS (SELECT FROM jobyard.done d WHERE d.job = s.job AND d.lease = s.lease)
          AND NOT EXISTS (SELECT FROM jobyard.active a WHERE a.job = s.job AND a.lease = s.lease)""",
    "two jobs: made for one key": """
        SELECT min(id::text)::uuid AS job FROM jobyard.job GROUP BY payload->>'number' HAVING count(*) > 1""",
    "another outcome than the one its handler brought about": """
        SELECT d.job FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job
        CROSS JOIN LATERAL (SELECT CASE WHEN (j.payload->>'refused')::bool THEN 'non_retryable'
            WHEN (j.payload->>'fails')::int >= j.max_attempts THEN 'exhausted' END AS reason) wanted
        WHERE d.reason IS DISTINCT FROM wanted.reason AND d.reason IS DISTINCT FROM 'crashed'""",
}
"""What may not be: each is a promise, and a statement that finds the jobs that break it. Whoever was killed three times
while a job ran has to take that job for the culprit, so `crashed` may befall any."""

SECOND_STARTS = """
WITH starts AS (SELECT DISTINCT ON (once) * FROM chaos.start ORDER BY once),
again AS (
    SELECT job, lag(lease) OVER job AS before, lag(pid) OVER job AS pid, lag(parent) OVER job AS parent
    FROM starts WINDOW job AS (PARTITION BY job ORDER BY lease))
SELECT CASE a.outcome WHEN 'retry' THEN 'retry after ' || (a.error->>'type') ELSE coalesce(a.outcome, 'unknown') END AS cause, coalesce(f.kind, 'no fault of ours') AS after, count(*)
FROM again LEFT JOIN jobyard.attempt a ON a.job = again.job AND a.lease = again.before
LEFT JOIN LATERAL (
    SELECT kind FROM chaos.fault f
    WHERE (f.pid IS NULL OR f.pid IN (again.pid, again.parent))
      AND f.began <= a.ended_at AND f.ended > a.ended_at - interval '10s'
    ORDER BY f.pid IS NULL, f.ended - f.began DESC LIMIT 1) f ON a.outcome <> 'retry'
WHERE again.before IS NOT NULL GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""
"""For each second start, how the attempt before it ended, and the fault that is most likely to blame: the longest
of the last seconds, of its own process before those of all."""

FIGURES = """
SELECT (SELECT count(*) FROM chaos.accepted) AS accepted,
       (SELECT count(*) FROM jobyard.job) AS jobs,
       (SELECT count(*) FROM jobyard.done WHERE status = 'completed') AS completed,
       (SELECT count(*) FROM jobyard.done WHERE status = 'failed') AS failed,
       (SELECT count(*) FROM jobyard.done WHERE reason = 'crashed') AS crashed,
       (SELECT count(DISTINCT once) FROM chaos.start) AS starts,
       (SELECT count(*) FROM chaos.payment) AS payments,
       (SELECT count(*) / greatest(extract(epoch FROM max(finished_at) - min(finished_at)), 1)
        FROM jobyard.done)::float8 AS per_second
"""

TIMES = """
SELECT coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY took), 0)::float8 AS p50,
       coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY took), 0)::float8 AS p99,
       coalesce(max(took), 0)::float8 AS slowest
FROM (SELECT extract(epoch FROM d.finished_at - j.created_at) AS took
      FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job WHERE d.run = 1) t
"""

LONGEST_PAUSE = """
SELECT coalesce(max(gap), 0)::float8 FROM (
    SELECT extract(epoch FROM finished_at - lag(finished_at) OVER (ORDER BY finished_at)) AS gap
    FROM jobyard.done WHERE finished_at <= (SELECT max(ended) FROM chaos.fault)) g
"""
"""Between two ends of jobs, while faults went on."""

FAULTS = """
SELECT f.kind, count(*), max(extract(epoch FROM f.ended - f.began))::float8 AS lasted,
       coalesce(max(extract(epoch FROM next.at - f.ended)), 0)::float8 AS next_completed
FROM chaos.fault f
LEFT JOIN LATERAL (SELECT min(finished_at) AS at FROM jobyard.done
                   WHERE status = 'completed' AND finished_at > f.ended) next ON true
GROUP BY f.kind ORDER BY f.kind
"""

WORST_RECOVERY = """
SELECT coalesce(max(extract(epoch FROM next.at - f.began)), 0)::float8
FROM chaos.fault f JOIN chaos.start s ON f.pid IN (s.pid, s.parent)
JOIN jobyard.attempt a ON a.job = s.job AND a.lease = s.lease AND a.outcome IN ('orphan', 'crash')
JOIN LATERAL (SELECT min(at) AS at FROM chaos.start n WHERE n.job = s.job AND n.lease > s.lease) next ON true
WHERE f.kind = 'kill worker' AND a.ended_at >= f.began
"""
"""From the kill of a worker to the next start of what it ran."""


@dataclass(slots=True)
class Audit:
    """What was found. `violations`: which promise, by how many jobs, and the first of them."""

    violations: dict[str, tuple[int, list[str]]] = field(default_factory=dict[str, tuple[int, list[str]]])
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    second_starts: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    faults: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


async def note(connection: Connection, accepted: Iterable[UUID], seen: Mapping[UUID, str]) -> None:
    """Put what clients were told beside what the handlers wrote."""
    await connection.copy_records_to_table(
        "accepted", schema_name="chaos", records=[(job,) for job in accepted]
    )
    await connection.copy_records_to_table("seen", schema_name="chaos", records=list(seen.items()))
    for index in ("start (job, lease)", "payment (job)", "accepted (job)"):
        await connection.execute(f"CREATE INDEX ON chaos.{index}")
    await connection.execute("ANALYZE")


async def audit(connection: Connection) -> Audit:
    found = Audit()
    for what, sql in VIOLATIONS.items():
        if jobs := [str(row["job"]) for row in await connection.fetch(sql, timeout=None)]:
            found.violations[what] = len(jobs), jobs[:SHOWN]
    for sql in (FIGURES, TIMES):
        row = await connection.fetchrow(sql)
        assert row is not None
        found.figures |= dict(row)
    found.figures["longest_pause"] = await connection.fetchval(LONGEST_PAUSE)
    found.figures["worst_recovery"] = await connection.fetchval(WORST_RECOVERY)
    found.second_starts = [tuple(row.values()) for row in await connection.fetch(SECOND_STARTS)]
    found.faults = [dict(row) for row in await connection.fetch(FAULTS)]
    return found
