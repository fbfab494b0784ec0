-- Dead letters: jobs whose last run failed for a reason that calls for a person. {source} gives failed runs; at most $3
-- of them are examined, so that a filter that matches little cannot read the whole table; where that ended the page,
-- `examined` is the last one looked at, and the next page goes on behind it.
-- $1 tenant, $2 the job behind which to start, $3 examine, $4 page size + 1, $5 reasons, $6 type, $7 queue, $8 failed
-- at or after, $9 failed before, $10 text that the error holds, as it stands in its JSON, $11 only these jobs.
WITH page AS MATERIALIZED (
    SELECT j.id, j.type, j.queue, j.priority, j.max_attempts, j.timeout_seconds, j.backoff_base, j.backoff_cap,
           j.tags, j.metadata, j.trace, j.created_at,
           d.status, d.reason, d.run, d.attempt, NULL::timestamptz AS run_at, d.finished_at AS updated_at, d.error,
           a.at AS cancel_requested_at, s.at AS progress_at, s.percent, s.message
    FROM ({source} LIMIT $3) c
    CROSS JOIN LATERAL (
        SELECT * FROM jobyard.done
        WHERE job = c.job AND run = c.run AND reason = ANY ($5::text[])
          AND ($8::timestamptz IS NULL OR finished_at >= $8) AND ($9::timestamptz IS NULL OR finished_at < $9)
          AND ($10::text IS NULL OR position($10 IN error::text) > 0)
        OFFSET 0) d
    CROSS JOIN LATERAL (
        SELECT * FROM jobyard.job
        WHERE id = c.job AND tenant = $1 AND ($6::text IS NULL OR type = $6) AND ($7::text IS NULL OR queue = $7)
        OFFSET 0) j
    LEFT JOIN LATERAL (SELECT at FROM jobyard.cancel_request WHERE job = c.job AND run = c.run OFFSET 0) a ON true
    LEFT JOIN LATERAL (
        SELECT at, percent, message FROM jobyard.progress WHERE job = c.job AND lease = d.lease OFFSET 0) s ON true
    WHERE NOT EXISTS (SELECT FROM jobyard.redrive r WHERE r.job = c.job AND r.run = c.run OFFSET 0)
      AND ($11::uuid[] IS NULL OR c.job = ANY ($11))
    ORDER BY c.job {direction}
    LIMIT $4
)
SELECT end_of_page.examined, page.*
FROM (SELECT CASE WHEN (SELECT count(*) FROM page) < $4
             THEN (SELECT job FROM ({source} OFFSET $3 - 1 LIMIT 1) e) END AS examined) end_of_page
LEFT JOIN page ON true;
