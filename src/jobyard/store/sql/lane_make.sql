-- Make lanes that do not exist yet, up to $6 a tenant. Those of suspects are made beyond that: what the sweep takes
-- back has to go somewhere. A conflict answers no row: the caller looks in a new statement, since the winner's row
-- is not visible in this one.
INSERT INTO jobyard.lane (tenant, queue, type, priority, suspect)
SELECT $1, $2, $3, $4, $5
WHERE $5::int2 > 0 OR (SELECT count(*) FROM jobyard.lane WHERE tenant = $1 AND suspect = 0) < $6
ON CONFLICT DO NOTHING
RETURNING id;
