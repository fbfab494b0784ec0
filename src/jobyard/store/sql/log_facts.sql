-- What is known of the jobs $1 and of their attempts with the leases $2, in this order: of a job that is deleted nothing,
-- and of an attempt that is, or never was, only what its job is. `result`: of those that ended their job, up to $3 bytes;
-- `result_omitted`: it is larger.
SELECT j.type, j.queue, j.tags, j.metadata, a.run, a.attempt, a.worker, a.retry_at, a.outcome, a.reason, a.error,
       CASE WHEN a.result_bytes <= $3 THEN a.result END AS result, coalesce(a.result_bytes > $3, false) AS result_omitted
FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS u (job, lease, place)
LEFT JOIN LATERAL (SELECT type, queue, tags, metadata FROM jobyard.job WHERE id = u.job OFFSET 0) j ON true
LEFT JOIN LATERAL (
    SELECT run, attempt, worker, retry_at, outcome, NULL::text AS reason, error, NULL::json AS result, 0 AS result_bytes
    FROM jobyard.attempt WHERE job = u.job AND lease = u.lease
    UNION ALL
    SELECT run, attempt, worker, NULL, status, reason, error, result, coalesce(octet_length(result::text), 0)
    FROM jobyard.done WHERE job = u.job AND lease = u.lease
    UNION ALL
    SELECT run, attempt, worker, NULL, 'running', NULL, NULL, NULL, 0
    FROM jobyard.active WHERE job = u.job AND lease = u.lease
    LIMIT 1) a ON true
ORDER BY u.place;
