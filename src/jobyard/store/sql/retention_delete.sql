-- Delete the locked jobs $1 with all that is kept of them, each only if its run $2 is still its last: in no live
-- place, and with no newer end. Answers which went. OFFSET 0: as in retention_lock.sql.
WITH over AS MATERIALIZED (
    SELECT u.job FROM unnest($1::uuid[], $2::int[]) AS u (job, run)
    WHERE NOT EXISTS (SELECT FROM jobyard.place p WHERE p.job = u.job AND p.run > u.run OFFSET 0)
), ends AS (
    DELETE FROM jobyard.done WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.done WHERE job = over.job OFFSET 0) d))
), tries AS (
    DELETE FROM jobyard.attempt WHERE ctid = ANY (ARRAY(
        SELECT a.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.attempt WHERE job = over.job OFFSET 0) a))
), asked AS (
    DELETE FROM jobyard.cancel_request WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.cancel_request WHERE job = over.job OFFSET 0) c))
), redriven AS (
    DELETE FROM jobyard.redrive WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.redrive WHERE job = over.job OFFSET 0) r))
), told AS (
    DELETE FROM jobyard.progress WHERE job = ANY (ARRAY(SELECT job FROM over))
), lines AS (
    DELETE FROM jobyard.job_log WHERE ctid = ANY (ARRAY(
        SELECT l.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.job_log WHERE job = over.job OFFSET 0) l))
), jobs AS (
    DELETE FROM jobyard.job WHERE ctid = ANY (ARRAY(
        SELECT j.ctid FROM over, LATERAL (SELECT ctid FROM jobyard.job WHERE id = over.job OFFSET 0) j))
    RETURNING id
)
SELECT array_agg(id) FROM jobs;
