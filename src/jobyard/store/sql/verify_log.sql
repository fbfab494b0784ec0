-- Of the log's next $2 rows above $1, up to $3: every start and end of an attempt it tells, and of them what the record
-- does not bear out. An event is written in the statement of the change itself, so in one snapshot both are seen, or
-- neither. Rows without leases are from before the log told them.
-- `missing`: a start without a record, though the job is there and not so often tried that it was forgotten ($4: how
-- many attempts are kept). `begun`: when the attempt began, for ends alone (null: nobody had to begin it).
WITH page AS MATERIALIZED (
    SELECT * FROM jobyard.event WHERE seq > $1 AND seq <= $3 ORDER BY seq LIMIT $2
), told AS MATERIALIZED (
    SELECT page.seq, page.kind, page.worker, item.job, item.detail, item.lease, r.place, r.outcome, r.reason, r.run,
           r.worker AS recorded, r.begun
    FROM page
    CROSS JOIN LATERAL unnest(page.jobs, page.details, page.leases) AS item (job, detail, lease)
    LEFT JOIN LATERAL (
        SELECT 'done' AS place, status AS outcome, reason, run, worker, started_at AS begun
        FROM jobyard.done WHERE job = item.job AND lease = item.lease
        UNION ALL
        SELECT 'attempt', outcome, NULL, run, worker, started_at
        FROM jobyard.attempt WHERE job = item.job AND lease = item.lease
        UNION ALL
        SELECT 'active', NULL, NULL, run, worker, claimed_at
        FROM jobyard.active WHERE job = item.job AND lease = item.lease
        LIMIT 1) r ON true
    WHERE page.kind IN ('started', 'completed', 'failed', 'released', 'retry_scheduled') AND page.leases IS NOT NULL
), denied AS (
    SELECT * FROM told
    WHERE CASE kind
              WHEN 'started' THEN recorded = worker
              WHEN 'completed' THEN place = 'done' AND outcome = 'completed'
              WHEN 'failed' THEN place = 'done' AND outcome = 'failed' AND reason = detail
              WHEN 'released' THEN place = 'attempt' AND outcome IN ('release', 'orphan')
              ELSE place = 'attempt' AND outcome IN ('retry', 'crash')
          END IS NOT TRUE
      AND EXISTS (SELECT FROM jobyard.job WHERE id = told.job OFFSET 0)
      AND (place IS NOT NULL
           OR $4 > (SELECT count(*) FROM jobyard.attempt a WHERE a.job = told.job AND a.lease > told.lease))
)
SELECT (SELECT count(*) FROM page) AS examined,
       (SELECT max(seq) FROM page) AS last,
       (SELECT min(seq) FROM page) AS first,
       (SELECT min(at) FROM page) AS at,
       (SELECT max(at) FROM page WHERE kind = 'started' AND leases IS NULL) AS without_leases,
       (SELECT coalesce(json_agg(told), '[]') FROM (
            SELECT kind, job, lease, run, recorded, begun FROM told ORDER BY seq) told) AS told,
       (SELECT coalesce(json_agg(denied), '[]') FROM denied) AS wrong;
