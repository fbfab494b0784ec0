-- End the pending job $1 as cancelled. No row in the answer: it does not wait any more (whoever claims it holds its row
-- first, and this statement waits for that and then finds nothing). `lease`: no attempt had it or ever will; it keeps
-- the ends of a job in order. $2: the error on record.
WITH now_ready AS (
    DELETE FROM jobyard.ready WHERE job = $1 RETURNING job, lane, run, attempt, seq AS lease
), now_scheduled AS (
    DELETE FROM jobyard.scheduled WHERE job = $1
    RETURNING job, lane, run, attempt, nextval('jobyard.ready_seq_seq') AS lease
), gone AS MATERIALIZED (
    SELECT g.*, j.tenant FROM (SELECT * FROM now_ready UNION ALL SELECT * FROM now_scheduled) g
    CROSS JOIN LATERAL (SELECT tenant FROM jobyard.job WHERE id = g.job OFFSET 0) j
), told AS (
    INSERT INTO jobyard.event (tenant, kind, jobs, attempts, details, leases)
    SELECT tenant, 'failed', ARRAY[job], ARRAY[attempt], ARRAY['cancelled'], ARRAY[lease] FROM gone
)
INSERT INTO jobyard.done (job, run, attempt, lease, tenant, status, reason, error)
SELECT job, run, attempt, lease, tenant, 'failed', 'cancelled', $2::json FROM gone
RETURNING run;
