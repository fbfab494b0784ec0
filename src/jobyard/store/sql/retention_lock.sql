-- Up to $3 jobs per outcome whose last run ended more than $1 (completed) or $2 (failed) seconds ago, oldest first,
-- locked. A job that a redrive holds, or that lives again, is passed over. OFFSET 0 keeps the look at the places a
-- look-up by job: planned on empty tables, it otherwise became a join that reads all of them.
SELECT locked.id AS job, old.run
FROM (
    (SELECT job, run, finished_at FROM jobyard.done
     WHERE status = 'completed' AND finished_at < now() - make_interval(secs => $1)
     ORDER BY finished_at LIMIT $3)
    UNION ALL
    (SELECT job, run, finished_at FROM jobyard.done d
     WHERE status = 'failed' AND finished_at < now() - make_interval(secs => $2)
       AND NOT EXISTS (SELECT FROM jobyard.place p WHERE p.job = d.job AND p.run > d.run OFFSET 0)
     ORDER BY finished_at LIMIT $3)
) old
CROSS JOIN LATERAL (SELECT id FROM jobyard.job WHERE id = old.job OFFSET 0) found
CROSS JOIN LATERAL (SELECT id FROM jobyard.job WHERE id = found.id FOR UPDATE SKIP LOCKED) locked;
