-- Worker processes with ids below $1, newest first, at most $2, and how many attempts each holds.
SELECT w.id, w.name, w.types, w.concurrency, w.idle, w.started_at, w.expires_at, w.expires_at > now() AS alive,
       (SELECT count(*) FROM jobyard.active a WHERE a.worker = w.id) AS in_flight
FROM jobyard.worker w WHERE w.id < $1 ORDER BY w.id DESC LIMIT $2;
