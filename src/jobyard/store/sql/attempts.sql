-- The attempts of job $1, newest first, below lease $2, at most $3: those that ended a run stand in `done`, the
-- others in `attempt`, the running one in `active`. $4: also the ends of runs that no attempt brought about (a job
-- cancelled while it was pending), which have no start.
-- With each what happened to it beside its start and end: a request to cancel, the progress it told of, a redrive.
SELECT a.run, a.attempt, a.lease, a.worker, a.started_at, a.ended_at, a.retry_at, a.outcome, a.reason, a.error,
       c.at AS cancel_requested_at, p.at AS progress_at, p.percent, p.message, r.at AS redriven_at
FROM (
    SELECT job, run, attempt, lease, worker, started_at, ended_at, retry_at, outcome, NULL AS reason, error
    FROM jobyard.attempt
    UNION ALL
    SELECT job, run, attempt, lease, worker, started_at, finished_at, NULL, status, reason, error
    FROM jobyard.done
    UNION ALL
    SELECT job, run, attempt, lease, worker, claimed_at, NULL, NULL, 'running', NULL, NULL
    FROM jobyard.active
) a
LEFT JOIN LATERAL (
    SELECT at FROM jobyard.cancel_request WHERE job = a.job AND run = a.run AND lease = a.lease OFFSET 0) c ON true
LEFT JOIN LATERAL (
    SELECT at, percent, message FROM jobyard.progress WHERE job = a.job AND lease = a.lease OFFSET 0) p ON true
LEFT JOIN LATERAL (
    SELECT at FROM jobyard.redrive
    WHERE job = a.job AND run = a.run AND a.outcome IN ('completed', 'failed') OFFSET 0) r ON true
WHERE a.job = $1 AND a.lease < $2 AND ($4 OR a.started_at IS NOT NULL)
ORDER BY a.lease DESC LIMIT $3;
