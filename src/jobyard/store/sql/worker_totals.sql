-- The living workers together.
SELECT count(*) AS live, coalesce(sum(concurrency), 0)::int8 AS slots, count(*) FILTER (WHERE idle) AS idle
FROM jobyard.worker WHERE expires_at > now();
