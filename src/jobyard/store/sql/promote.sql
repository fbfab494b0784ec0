-- What has come due may run now. Any number of maintainers may do this at once.
-- $1: how many at most; $2: the time to judge by, null for the database's own.
WITH due AS (
    DELETE FROM jobyard.scheduled WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobyard.scheduled WHERE run_at <= coalesce($2, now())
        ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING job, run_at, lane, run, attempt, crashes
), moved AS (
    INSERT INTO jobyard.ready (lane, run, attempt, crashes, job)
    SELECT lane, run, attempt, crashes, job FROM due ORDER BY run_at, job
)
SELECT count(*)::int AS promoted,
       jobyard.wake(array_agg(DISTINCT lane),
                    ARRAY(SELECT type FROM jobyard.lane WHERE id = ANY (array_agg(DISTINCT due.lane))),
                    count(*)::int, false)
FROM due;
