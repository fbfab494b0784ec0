-- Lock up to $1 attempts that nobody runs any more, in order of job: their worker has no row, or their deadline
-- has passed (the worker itself should have ended them a lease ago). Second statement of the sweep.
SELECT a.job, a.lease, a.attempt, a.crashes,
       EXISTS (SELECT FROM jobyard.worker w WHERE w.id = a.worker) AS overdue,
       j.max_attempts, j.timeout_seconds, j.backoff_base, j.backoff_cap,
       l.tenant, l.queue, l.type, l.priority, l.suspect
FROM (SELECT * FROM jobyard.active a
      WHERE a.deadline <= now()
         OR NOT EXISTS (SELECT FROM jobyard.worker w WHERE w.id = a.worker)
      ORDER BY a.job LIMIT $1 FOR UPDATE) a
CROSS JOIN LATERAL (SELECT * FROM jobyard.job WHERE id = a.job OFFSET 0) j
CROSS JOIN LATERAL (SELECT * FROM jobyard.lane WHERE id = a.lane OFFSET 0) l
ORDER BY a.job;
