-- What the database believes worker $1 holds: a worker compares, and hands back what it does not know of (the answer
-- to its claim was lost).
SELECT a.job, a.lease, a.attempt, a.crashes, j.max_attempts, j.backoff_base, j.backoff_cap,
       l.tenant, l.queue, l.type, l.priority, l.suspect
FROM jobyard.active a
CROSS JOIN LATERAL (SELECT * FROM jobyard.job WHERE id = a.job OFFSET 0) j
CROSS JOIN LATERAL (SELECT * FROM jobyard.lane WHERE id = a.lane OFFSET 0) l
WHERE a.worker = $1;
