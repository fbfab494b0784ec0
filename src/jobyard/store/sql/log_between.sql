-- What was committed after tick $1 and up to tick $2, in order of seq, behind $3, at most $4 rows of the log. What was
-- restored is not among it.
SELECT e.seq, e.at, e.kind, e.jobs, e.attempts, e.details, e.leases, e.worker
FROM (SELECT b.snap AS before, u.snap AS upto, (SELECT restored_to FROM jobyard.log_epoch) AS restored_to
      FROM jobyard.tick b, jobyard.tick u WHERE b.id = $1 AND u.id = $2) t
CROSS JOIN LATERAL (
    SELECT * FROM jobyard.event WHERE xid >= pg_snapshot_xmax(t.before) AND xid < pg_snapshot_xmax(t.upto)
    UNION ALL
    SELECT * FROM jobyard.event WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(t.before)))
) e
WHERE pg_visible_in_snapshot(e.xid, t.upto) AND e.seq > $3 AND e.seq > t.restored_to
ORDER BY e.seq LIMIT $4;
