-- Ask the attempt of job $1 that runs now to end. The lock is what makes the answer true: an attempt that ends
-- meanwhile waits for it, and whoever sends it back in line looks for a request after that. No row in the answer: the
-- attempt is over. `asked`: false where somebody had asked before.
WITH held AS MATERIALIZED (
    SELECT job, run, lease, attempt, tenant FROM jobyard.active WHERE job = $1 FOR KEY SHARE
), asked AS (
    INSERT INTO jobyard.cancel_request (job, run, lease) SELECT job, run, lease FROM held
    ON CONFLICT DO NOTHING RETURNING job
), told AS (
    INSERT INTO jobyard.event (tenant, kind, jobs, attempts, leases)
    SELECT tenant, 'cancel_requested', ARRAY[job], ARRAY[attempt], ARRAY[lease] FROM held WHERE job IN (SELECT job FROM asked)
)
SELECT EXISTS (SELECT FROM asked) AS asked FROM held;
