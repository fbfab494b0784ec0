-- Seconds since the first tick that not every shard has passed; null where all have passed all.
SELECT date_part('epoch', now() - min(t.at))
FROM jobyard.relay r CROSS JOIN LATERAL (
    SELECT at FROM jobyard.tick WHERE id > r.tick ORDER BY id LIMIT 1) t;
