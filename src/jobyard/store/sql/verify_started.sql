-- Which of the leases $1 the log says were given out, wherever in it: one scan of the log.
SELECT DISTINCT lease FROM jobyard.event CROSS JOIN LATERAL unnest(leases) AS lease
WHERE kind = 'started' AND leases && $1::bigint[] AND lease = ANY ($1::bigint[]);
