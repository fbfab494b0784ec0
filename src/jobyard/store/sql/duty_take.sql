-- Hold the duty $1 as $2 for $3 seconds from now: whoever has it renews it, and another takes it once its time is over.
INSERT INTO jobyard.duty AS d (name, holder, until) VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE d.holder = excluded.holder OR d.until < now()
RETURNING true;
