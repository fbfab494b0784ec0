-- A page of jobs, newest id first. {source} gives candidates: a place for a status, `job` for any. At most
-- $3 candidates are examined, so that a filter that matches little cannot read the whole table; where that
-- ended the page early, `examined` is the last one looked at, and the next page goes on behind it.
-- $1 tenant, $2 ids below this, $3 examine, $4 page size + 1, $5 status, $6 type, $7 queue, $8 tag, $9 metadata,
-- $10 created at or after, $11 created before.
WITH page AS MATERIALIZED (
    SELECT j.id, j.type, j.queue, j.priority, j.max_attempts, j.timeout_seconds, j.backoff_base, j.backoff_cap,
           j.tags, j.metadata, j.trace, j.created_at,
           p.status, p.reason, p.run, p.attempt, p.run_at, p.updated_at, p.error,
           a.at AS cancel_requested_at, s.at AS progress_at, s.percent, s.message
    FROM ({source} ORDER BY job DESC LIMIT $3) c
    CROSS JOIN LATERAL (
        SELECT * FROM jobyard.job
        WHERE id = c.job AND tenant = $1
          AND ($6::text IS NULL OR type = $6) AND ($7::text IS NULL OR queue = $7)
          AND ($8::text IS NULL OR tags ? $8) AND ($9::jsonb IS NULL OR metadata @> $9)
          AND ($10::timestamptz IS NULL OR created_at >= $10)
          AND ($11::timestamptz IS NULL OR created_at < $11)
        OFFSET 0) j
    CROSS JOIN LATERAL (SELECT * FROM jobyard.place WHERE job = j.id ORDER BY run DESC LIMIT 1) p
    LEFT JOIN LATERAL (SELECT at FROM jobyard.cancel_request WHERE job = j.id AND run = p.run OFFSET 0) a ON true
    LEFT JOIN LATERAL (
        SELECT at, percent, message FROM jobyard.progress WHERE job = j.id AND lease = p.lease OFFSET 0) s ON true
    WHERE $5::text IS NULL OR p.status = $5
    ORDER BY c.job DESC
    LIMIT $4
)
SELECT end_of_page.examined, page.*
FROM (SELECT CASE WHEN (SELECT count(*) FROM page) < $4
             THEN (SELECT job FROM ({source} ORDER BY job DESC OFFSET $3 - 1 LIMIT 1) e) END AS examined) end_of_page
LEFT JOIN page ON true;
