-- Append a tick if something was committed since the last one and that is at least $1 seconds old; its number, if any.
-- Rows that the last one did not see are of transactions that it saw running or that began later: two looks at an index.
INSERT INTO jobyard.tick (id, snap)
SELECT last.id + 1, pg_current_snapshot()
FROM (SELECT id, snap, at FROM jobyard.tick ORDER BY id DESC LIMIT 1) last
WHERE last.at < now() - make_interval(secs => $1)
  AND (EXISTS (SELECT FROM jobyard.event WHERE xid >= pg_snapshot_xmax(last.snap))
       OR EXISTS (SELECT FROM jobyard.event WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(last.snap)))))
ON CONFLICT DO NOTHING
RETURNING id;
