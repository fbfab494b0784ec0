-- The first $3 ready jobs of each of the lanes $1, behind the places $2.
SELECT l.lane, r.seq, r.job
FROM unnest($1::int[], $2::bigint[]) AS l (lane, behind),
     LATERAL (SELECT seq, job FROM jobyard.ready WHERE lane = l.lane AND seq > l.behind ORDER BY seq LIMIT $3) r;
