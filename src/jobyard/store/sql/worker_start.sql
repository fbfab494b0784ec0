-- A worker's row, with an id that was never used before. $1 name, $2 types, $3 concurrency, $4 seconds of a lease.
INSERT INTO jobyard.worker (name, types, concurrency, expires_at)
VALUES ($1, $2, $3, now() + make_interval(secs => $4))
RETURNING id;
