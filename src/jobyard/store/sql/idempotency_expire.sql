-- Forget up to $1 keys whose day is over.
WITH gone AS (
    DELETE FROM jobyard.idempotency WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobyard.idempotency WHERE expires_at < now() ORDER BY expires_at LIMIT $1
        FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*)::int FROM gone;
