-- Every type that was ever put into a queue of tenant $1, from queue names above $2, of at most $3 queues.
SELECT l.queue, array_agg(DISTINCT l.type ORDER BY l.type) AS types
FROM jobyard.lane l WHERE l.tenant = $1 AND l.queue > $2 GROUP BY l.queue ORDER BY l.queue LIMIT $3;
