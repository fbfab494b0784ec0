-- Who holds a key, while it holds. $1 tenant, $2 key.
SELECT job, digest FROM jobyard.idempotency WHERE tenant = $1 AND key = $2 AND expires_at >= now();
