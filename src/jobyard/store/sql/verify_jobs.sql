-- Of the next $2 jobs above id $1: those that stand nowhere, or in two places at once. One statement is one snapshot,
-- in which a job that moves meanwhile is still in exactly one place.
WITH page AS MATERIALIZED (
    SELECT id FROM jobyard.job WHERE id > $1 ORDER BY id LIMIT $2
), found AS (
    SELECT page.id, live.places, live.runs, over.run AS last_over
    FROM page
    CROSS JOIN LATERAL (
        SELECT array_agg(place) AS places, array_agg(run) AS runs FROM (
            SELECT 'ready' AS place, run FROM jobyard.ready WHERE job = page.id
            UNION ALL SELECT 'scheduled', run FROM jobyard.scheduled WHERE job = page.id
            UNION ALL SELECT 'active', run FROM jobyard.active WHERE job = page.id) p) live
    LEFT JOIN LATERAL (
        SELECT run FROM jobyard.done WHERE job = page.id ORDER BY run DESC LIMIT 1) over ON true
)
SELECT (SELECT count(*) FROM page) AS examined,
       (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last,
       (SELECT coalesce(json_agg(json_build_object('job', id, 'places', places, 'runs', runs, 'over', last_over)), '[]')
        FROM found
        WHERE (places IS NULL AND last_over IS NULL)
           OR cardinality(places) > 1
           OR last_over >= ANY (runs)) AS wrong;
