-- After a restore: of what was restored what may not be published yet, and all that came since, up to tick $1; in order of
-- seq, behind $2, at most $3 rows of the log.
SELECT e.seq, e.at, e.kind, e.jobs, e.attempts, e.details, e.leases, e.worker
FROM (SELECT snap, restored_to, seen, seen_at FROM jobyard.log_epoch, jobyard.tick WHERE id = $1) t
CROSS JOIN LATERAL (
    SELECT * FROM jobyard.event
    WHERE seq > $2
      AND CASE WHEN seq <= t.restored_to THEN at >= t.seen_at OR NOT pg_visible_in_snapshot(xid, t.seen)
               ELSE pg_visible_in_snapshot(xid, t.snap) END
    ORDER BY seq LIMIT $3) e
ORDER BY e.seq;
