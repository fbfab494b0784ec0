-- End attempts for good: each only while its lease is still held. A job missing from the answer had lost its
-- lease: nothing was written for it. The rows are locked in the order given, so the caller sorts by job.
-- $1 jobs, $2 leases, $3 statuses, $4 reasons, $5 results, $6 errors.
WITH ended AS MATERIALIZED (
    SELECT held.*, u.status, u.reason, u.result, u.error
    FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::json[], $6::json[])
         AS u (job, lease, status, reason, result, error)
    CROSS JOIN LATERAL (
        SELECT a.ctid AS place, a.job, a.run, a.attempt, a.lease, a.worker, a.claimed_at, a.tenant
        FROM jobyard.active a WHERE a.job = u.job AND a.lease = u.lease FOR UPDATE OFFSET 0) held
), gone AS (
    DELETE FROM jobyard.active WHERE ctid = ANY (ARRAY(SELECT place FROM ended))
), told AS (
    INSERT INTO jobyard.event (tenant, kind, jobs, attempts, details, leases)
    SELECT tenant, status, array_agg(job), array_agg(attempt),
           CASE WHEN status = 'failed' THEN array_agg(reason) END, array_agg(lease)
    FROM ended GROUP BY tenant, status
)
INSERT INTO jobyard.done (job, run, attempt, lease, worker, started_at, tenant, status, reason, result, error)
SELECT job, run, attempt, lease, worker, claimed_at, tenant, status, reason, result, error FROM ended
RETURNING job;
