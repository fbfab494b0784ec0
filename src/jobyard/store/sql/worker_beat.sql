-- Renew every lease of worker $1 by $2 seconds. No row in the answer: the worker had expired, all its leases are
-- lost, and it must take a new id before it claims again.
UPDATE jobyard.worker SET expires_at = now() + make_interval(secs => $2)
WHERE id = $1 AND expires_at > now()
RETURNING id;
