-- How many jobs have all pairs of metadata $1, counted no further than $2.
SELECT count(*) FROM (SELECT FROM jobyard.job WHERE metadata @> $1::jsonb LIMIT $2) m;
