-- Drop up to $2 messages that were published more than $1 seconds ago and that no subscription wants any more.
WITH gone AS (
    DELETE FROM jobyard.message WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobyard.message m
        WHERE published_at < now() - make_interval(secs => $1)
          AND NOT EXISTS (SELECT FROM jobyard.delivery d WHERE d.seq = m.seq OFFSET 0)
        ORDER BY published_at LIMIT $2))
    RETURNING 1
)
SELECT count(*)::int FROM gone;
