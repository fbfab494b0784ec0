-- Lines that attempts wrote, each only by the owner: its lease is held, or it has completed the job under it. Again those
-- whose answer was lost change nothing. Whoever is missing from the answer had lost its lease.
-- $1 jobs, $2 leases, $3 lines, $4 seconds ago, $5 levels, $6 texts; sorted by job by the caller.
WITH owned AS MATERIALIZED (
    SELECT u.job, u.lease, u.line, u.ago, u.level, u.text
    FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::float8[], $5::text[], $6::text[])
         AS u (job, lease, line, ago, level, text)
    LEFT JOIN LATERAL (
        SELECT true AS holds FROM jobyard.active WHERE job = u.job AND lease = u.lease FOR KEY SHARE OFFSET 0) a ON true
    LEFT JOIN LATERAL (
        SELECT lease = u.lease AND status = 'completed' AS holds FROM jobyard.done
        WHERE job = u.job ORDER BY run DESC LIMIT 1) d ON true
    WHERE a.holds OR d.holds
), kept AS (
    INSERT INTO jobyard.job_log (job, lease, line, at, level, text)
    SELECT job, lease, line, now() - make_interval(secs => ago), level, text FROM owned
    ON CONFLICT DO NOTHING
)
SELECT DISTINCT lease FROM owned;
