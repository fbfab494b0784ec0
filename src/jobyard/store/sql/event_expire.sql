-- Drop up to $2 rows of the log older than $1 seconds. Walked from the lowest seq, which is old enough to be the
-- oldest: the log is appended in nearly that order.
WITH gone AS (
    DELETE FROM jobyard.event WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM (SELECT ctid, at FROM jobyard.event ORDER BY seq LIMIT $2) oldest
        WHERE at < now() - make_interval(secs => $1)))
    RETURNING 1
)
SELECT count(*)::int FROM gone;
