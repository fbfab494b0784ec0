-- The attempts of job $1, newest first, below lease $2, at most $3: those that ended a run stand in `done`, the
-- others in `attempt`, the running one in `active`.
SELECT run, attempt, lease, worker, started_at, ended_at, retry_at, outcome, reason, error FROM (
    SELECT job, run, attempt, lease, worker, started_at, ended_at, retry_at, outcome, NULL AS reason, error
    FROM jobyard.attempt
    UNION ALL
    SELECT job, run, attempt, lease, worker, started_at, finished_at, NULL, status, reason, error
    FROM jobyard.done
    UNION ALL
    SELECT job, run, attempt, lease, worker, claimed_at, NULL, NULL, 'running', NULL, NULL
    FROM jobyard.active
) a
WHERE job = $1 AND lease < $2
ORDER BY lease DESC LIMIT $3;
