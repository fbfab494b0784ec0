-- Of the next $2 jobs above id $1: those whose rows break a promise, whatever the log says. One statement is one
-- snapshot, in which a job that moves meanwhile is still in exactly one place.
-- `over`: the last run that ended. `lost`: that run was redriven, and the next one is nowhere. `reopened`: a completed
-- run that another run followed. `twice`: a lease with two outcomes, or an attempt after the end of its run.
WITH page AS MATERIALIZED (
    SELECT id FROM jobyard.job WHERE id > $1 ORDER BY id LIMIT $2
), found AS (
    SELECT page.id, live.places, live.runs, over.run AS over, lost.run AS lost,
           CASE WHEN over.completed < over.run OR over.completed < ANY (live.runs) THEN over.completed END AS reopened,
           twice.run AS twice, twice.lease
    FROM page
    CROSS JOIN LATERAL (
        SELECT array_agg(place) AS places, array_agg(run) AS runs FROM (
            SELECT 'ready' AS place, run FROM jobyard.ready WHERE job = page.id
            UNION ALL SELECT 'scheduled', run FROM jobyard.scheduled WHERE job = page.id
            UNION ALL SELECT 'active', run FROM jobyard.active WHERE job = page.id) p) live
    CROSS JOIN LATERAL (
        SELECT max(run) AS run, min(run) FILTER (WHERE status = 'completed') AS completed
        FROM jobyard.done WHERE job = page.id) over
    LEFT JOIN LATERAL (
        SELECT run FROM jobyard.redrive
        WHERE job = page.id AND run = over.run AND live.places IS NULL OFFSET 0) lost ON true
    LEFT JOIN LATERAL (
        SELECT run, lease FROM (
            SELECT run, lease, place, count(*) OVER (PARTITION BY lease) AS outcomes,
                   max(lease) FILTER (WHERE place = 'done') OVER (PARTITION BY run) AS ended
            FROM (
                SELECT run, lease, 'attempt' AS place FROM jobyard.attempt WHERE job = page.id
                UNION ALL SELECT run, lease, 'active' FROM jobyard.active WHERE job = page.id
                UNION ALL SELECT run, lease, 'done' FROM jobyard.done WHERE job = page.id) tries) t
        WHERE lease IS NOT NULL AND (outcomes > 1 OR (place = 'attempt' AND lease > ended))
        LIMIT 1) twice ON true
)
SELECT (SELECT count(*) FROM page) AS examined,
       (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last,
       (SELECT coalesce(json_agg(json_build_object(
                   'job', id, 'places', places, 'runs', runs, 'over', over, 'lost', lost, 'reopened', reopened,
                   'twice', twice, 'lease', lease)), '[]')
        FROM found
        WHERE (places IS NULL AND over IS NULL)
           OR cardinality(places) > 1
           OR over >= ANY (runs)
           OR num_nonnulls(lost, reopened, twice) > 0) AS wrong;
