-- Where job $1 of tenant $2 is now, in one snapshot.
SELECT p.status, p.run, p.lease
FROM jobyard.job j
CROSS JOIN LATERAL (SELECT * FROM jobyard.place WHERE job = j.id ORDER BY run DESC LIMIT 1) p
WHERE j.id = $1 AND j.tenant = $2;
