-- How many jobs have tag $1, counted no further than $2.
SELECT count(*) FROM (SELECT FROM jobyard.job WHERE tags ? $1 LIMIT $2) t;
