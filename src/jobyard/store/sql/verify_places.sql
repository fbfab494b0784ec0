-- Of the next $2 places above job $1: those that no job belongs to.
WITH page AS MATERIALIZED (
    SELECT job, place, run FROM (
        SELECT job, 'ready' AS place, run FROM jobyard.ready
        UNION ALL SELECT job, 'scheduled', run FROM jobyard.scheduled
        UNION ALL SELECT job, 'active', run FROM jobyard.active
        UNION ALL SELECT job, 'done', run FROM jobyard.done) p
    WHERE job > $1 ORDER BY job LIMIT $2
)
SELECT (SELECT count(*) FROM page) AS examined,
       (SELECT job FROM page ORDER BY job DESC LIMIT 1) AS last,
       (SELECT coalesce(json_agg(page), '[]')
        FROM page WHERE (SELECT j.id FROM jobyard.job j WHERE j.id = page.job) IS NULL) AS wrong;
