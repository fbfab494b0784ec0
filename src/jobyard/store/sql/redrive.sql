-- Start the next run of failed jobs, with a fresh budget and without suspicion. What the answer misses was answered by
-- another redrive, or has no such failed run. The jobs are locked, in order of id.
-- $1 jobs, $2 the failed runs; $3 seconds from one job to the next (0: all at once), $4 the place of the first in that
-- row.
WITH failed AS MATERIALIZED (
    SELECT u.job, u.run FROM unnest($1::uuid[], $2::int[]) AS u (job, run)
    CROSS JOIN LATERAL (
        SELECT status FROM jobyard.done WHERE job = u.job AND run = u.run OFFSET 0) d
    WHERE d.status = 'failed'
), answered AS (
    INSERT INTO jobyard.redrive (job, run) SELECT job, run FROM failed ORDER BY job
    ON CONFLICT DO NOTHING RETURNING job, run
), again AS MATERIALIZED (
    SELECT a.job, a.run + 1 AS run, d.lease, j.lane, j.type, j.tenant,
           now() + make_interval(secs => $3 * ($4 + row_number() OVER (ORDER BY a.job) - 1)) AS run_at
    FROM answered a
    CROSS JOIN LATERAL (SELECT lane, type, tenant FROM jobyard.job WHERE id = a.job OFFSET 0) j
    CROSS JOIN LATERAL (SELECT lease FROM jobyard.done WHERE job = a.job AND run = a.run OFFSET 0) d
), later AS (
    INSERT INTO jobyard.scheduled (job, run_at, lane, run, attempt, crashes)
    SELECT job, run_at, lane, run, 0, 0 FROM again WHERE run_at > now()
), sooner AS (
    INSERT INTO jobyard.ready (lane, run, attempt, crashes, job)
    SELECT lane, run, 0, 0, job FROM again WHERE run_at <= now() ORDER BY job
), told AS (
    INSERT INTO jobyard.event (tenant, kind, jobs, attempts, leases)
    SELECT tenant, 'redriven', array_agg(job), array_agg(0), array_agg(lease) FROM again GROUP BY tenant
)
SELECT array_agg(job) AS redriven,
       jobyard.wake(array_agg(DISTINCT lane) FILTER (WHERE run_at <= now()), array_agg(DISTINCT type), count(*)::int,
                    false)
FROM again;
