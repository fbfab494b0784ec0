-- The lanes in which jobs are ready, by one look at the index for each of them, however many lanes there are.
WITH RECURSIVE held AS (
    (SELECT lane FROM jobyard.ready ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT r.lane FROM jobyard.ready r WHERE r.lane > held.lane ORDER BY r.lane LIMIT 1)
    FROM held WHERE held.lane IS NOT NULL
)
SELECT l.id, l.type
FROM held CROSS JOIN LATERAL (SELECT id, type FROM jobyard.lane WHERE id = held.lane OFFSET 0) l;
