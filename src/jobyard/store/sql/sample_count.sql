-- What waits and what runs, by type. It reads all of three tables, so it runs once in a while and under planner
-- settings that let it (see sampling.py): 54 ms for 650,000 jobs.
SELECT l.tenant, l.queue, l.type, sum(c.ready)::int8 AS ready, sum(c.scheduled)::int8 AS scheduled,
       sum(c.active)::int8 AS active, coalesce(sum(c.ready + c.active) FILTER (WHERE l.suspect > 0), 0)::int8 AS suspects,
       min(c.oldest) AS oldest
FROM (
    SELECT lane, count(*) AS ready, 0 AS scheduled, 0 AS active, min(since) AS oldest
    FROM jobyard.ready GROUP BY lane
    UNION ALL
    SELECT lane, 0, count(*), 0, NULL FROM jobyard.scheduled GROUP BY lane
    UNION ALL
    SELECT lane, 0, 0, count(*), NULL FROM jobyard.active GROUP BY lane
) c
JOIN jobyard.lane l ON l.id = c.lane
GROUP BY l.tenant, l.queue, l.type
ORDER BY l.tenant, l.queue, l.type;
