-- One job and its place, in one snapshot: that alone is truthful while jobs move.
SELECT j.id, j.type, j.queue, j.priority, j.payload, j.max_attempts, j.timeout_seconds, j.backoff_base,
       j.backoff_cap, j.tags, j.metadata, j.trace, j.created_at, j.run_at AS asked_run_at,
       p.status, p.reason, p.run, p.attempt, p.run_at, p.updated_at, p.result, p.error
FROM jobyard.job j
CROSS JOIN LATERAL (SELECT * FROM jobyard.place WHERE job = j.id ORDER BY run DESC LIMIT 1) p
WHERE j.id = $1 AND j.tenant = $2;
