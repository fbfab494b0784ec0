-- Of the next $2 places above job $1: those that no job belongs to.
WITH page AS MATERIALIZED (
    SELECT job, place FROM (
        SELECT job, 'ready' AS place FROM jobyard.ready
        UNION ALL SELECT job, 'scheduled' FROM jobyard.scheduled
        UNION ALL SELECT job, 'active' FROM jobyard.active
        UNION ALL SELECT job, 'done' FROM jobyard.done) p
    WHERE job > $1 ORDER BY job LIMIT $2
)
SELECT (SELECT count(*) FROM page) AS examined,
       (SELECT job FROM page ORDER BY job DESC LIMIT 1) AS last,
       (SELECT coalesce(json_agg(json_build_object('job', job, 'places', ARRAY[place], 'runs', NULL, 'over', NULL)), '[]')
        FROM page WHERE (SELECT j.id FROM jobyard.job j WHERE j.id = page.job) IS NULL) AS wrong;
