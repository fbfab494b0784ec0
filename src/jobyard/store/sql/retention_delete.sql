-- Delete the locked jobs $1 with all that is kept of them, each only if its run $2 is still its last: in no live
-- place, and with no newer end. Answers how many went. OFFSET 0: as in retention_lock.sql.
WITH over AS MATERIALIZED (
    SELECT u.job FROM unnest($1::uuid[], $2::int[]) AS u (job, run)
    WHERE NOT EXISTS (SELECT FROM jobyard.place p WHERE p.job = u.job AND p.run > u.run OFFSET 0)
), ends AS (
    DELETE FROM jobyard.done WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.done WHERE job = over.job OFFSET 0) d))
), tries AS (
    DELETE FROM jobyard.attempt WHERE ctid = ANY (ARRAY(
        SELECT a.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.attempt WHERE job = over.job OFFSET 0) a))
), jobs AS (
    DELETE FROM jobyard.job WHERE ctid = ANY (ARRAY(
        SELECT j.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.job WHERE id = over.job OFFSET 0) j))
    RETURNING id
)
SELECT count(*)::int FROM jobs;
