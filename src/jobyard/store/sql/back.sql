-- Move attempts whose rows this transaction has locked back in line, or to their end: the one statement of retry,
-- release, orphan and crash. Writes the attempt on record, the event, and the move. A run that somebody asked to
-- cancel does not go back: it ends here. That is why the rows are locked by an earlier statement: only a snapshot
-- taken after the lock shows every request that was accepted before it.
-- $1 jobs, $2 leases, $3 causes, $4 reasons (null: back to pending), $5 lanes, $6 attempts that count from now on,
-- $7 crashes, $8 seconds until it may run (0: at once), $9 errors; $10 the types, $11 a lane is new: for the wake-up;
-- $12 how many attempts are kept of a job.
WITH ended AS MATERIALIZED (
    SELECT a.place, a.job, a.lease, a.run, a.attempt, a.worker, a.claimed_at, a.tenant,
           u.cause, coalesce(u.reason, CASE WHEN asked.cancelled THEN 'cancelled' END) AS reason,
           asked.cancelled AND u.reason IS NULL AS cancelled, u.lane, u.counted, u.crashes, u.error,
           CASE WHEN u.run_in > 0 THEN now() + make_interval(secs => u.run_in) END AS run_at
    FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int2[], $8::float8[],
                $9::json[])
         AS u (job, lease, cause, reason, lane, counted, crashes, run_in, error)
    CROSS JOIN LATERAL (
        SELECT ctid AS place, * FROM jobyard.active WHERE job = u.job AND lease = u.lease FOR UPDATE OFFSET 0) a
    CROSS JOIN LATERAL (
        SELECT EXISTS (SELECT FROM jobyard.cancel_request c WHERE c.job = a.job AND c.run = a.run) AS cancelled
        OFFSET 0) asked
), gone AS (
    DELETE FROM jobyard.active WHERE ctid = ANY (ARRAY(SELECT place FROM ended))
), kept AS (
    INSERT INTO jobyard.attempt (job, lease, run, attempt, worker, started_at, retry_at, outcome, error)
    SELECT job, lease, run, attempt, worker, claimed_at, run_at, cause, error FROM ended WHERE reason IS NULL
), forgotten AS (
    DELETE FROM jobyard.attempt WHERE ctid = ANY (ARRAY(
        SELECT old.ctid FROM ended,
             LATERAL (SELECT ctid FROM jobyard.attempt WHERE job = ended.job
                      ORDER BY lease DESC OFFSET $12 - 1) old
        WHERE ended.reason IS NULL))
), over AS (
    INSERT INTO jobyard.done (job, run, attempt, lease, worker, started_at, tenant, status, reason, error)
    SELECT job, run, attempt, lease, worker, claimed_at, tenant, 'failed', reason, error
    FROM ended WHERE reason IS NOT NULL
), later AS (
    INSERT INTO jobyard.scheduled (job, run_at, lane, run, attempt, crashes)
    SELECT job, run_at, lane, run, counted, crashes FROM ended WHERE reason IS NULL AND run_at IS NOT NULL
), sooner AS (
    INSERT INTO jobyard.ready (lane, run, attempt, crashes, job)
    SELECT lane, run, counted, crashes, job FROM ended WHERE reason IS NULL AND run_at IS NULL
), told AS (
    INSERT INTO jobyard.event (tenant, kind, jobs, attempts, details, leases)
    SELECT tenant, kind, array_agg(job), array_agg(attempt), array_agg(coalesce(reason, cause)), array_agg(lease)
    FROM (SELECT *, CASE WHEN reason IS NOT NULL THEN 'failed' WHEN cause IN ('retry', 'crash') THEN 'retry_scheduled'
                         ELSE 'released' END AS kind FROM ended) e
    GROUP BY tenant, kind
)
SELECT array_agg(job) AS moved, array_agg(job) FILTER (WHERE cancelled) AS cancelled,
       jobyard.wake(array_agg(DISTINCT lane) FILTER (WHERE $11 OR (reason IS NULL AND run_at IS NULL)),
                    $10::text[], count(*)::int, $11)
FROM ended;
