-- Drop up to $1 ticks that every shard has passed.
WITH gone AS (
    DELETE FROM jobyard.tick WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobyard.tick WHERE id < (SELECT min(tick) FROM jobyard.relay) ORDER BY id LIMIT $1))
    RETURNING 1
)
SELECT count(*)::int FROM gone;
