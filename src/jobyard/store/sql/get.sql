-- One job and its place, in one snapshot: that alone is truthful while jobs move. Progress is shown while the attempt
-- that told of it is the latest.
SELECT j.id, j.type, j.queue, j.priority, j.payload, j.max_attempts, j.timeout_seconds, j.backoff_base,
       j.backoff_cap, j.tags, j.metadata, j.trace, j.created_at, j.run_at AS asked_run_at,
       p.status, p.reason, p.run, p.attempt, p.run_at, p.updated_at, p.result, p.error,
       c.at AS cancel_requested_at, s.at AS progress_at, s.percent, s.message
FROM jobyard.job j
CROSS JOIN LATERAL (SELECT * FROM jobyard.place WHERE job = j.id ORDER BY run DESC LIMIT 1) p
LEFT JOIN LATERAL (SELECT at FROM jobyard.cancel_request WHERE job = j.id AND run = p.run OFFSET 0) c ON true
LEFT JOIN LATERAL (
    SELECT at, percent, message FROM jobyard.progress WHERE job = j.id AND lease = p.lease OFFSET 0) s ON true
WHERE j.id = $1 AND j.tenant = $2;
