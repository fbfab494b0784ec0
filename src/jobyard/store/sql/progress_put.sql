-- What attempts say of their progress: the latest of each, and only by the owner: its lease is held, or it has completed
-- the job under it. Whoever is missing from the answer had lost it. Written in order of job (the caller sorts).
-- $1 jobs, $2 leases, $3 percents, $4 messages.
INSERT INTO jobyard.progress (job, lease, percent, message)
SELECT u.job, u.lease, u.percent, u.message
FROM unnest($1::uuid[], $2::bigint[], $3::float8[], $4::text[]) AS u (job, lease, percent, message)
LEFT JOIN LATERAL (
    SELECT true AS holds FROM jobyard.active WHERE job = u.job AND lease = u.lease FOR KEY SHARE OFFSET 0) a ON true
LEFT JOIN LATERAL (
    SELECT lease = u.lease AND status = 'completed' AS holds FROM jobyard.done
    WHERE job = u.job ORDER BY run DESC LIMIT 1) d ON true
WHERE a.holds OR d.holds
ON CONFLICT (job) DO UPDATE
    SET lease = excluded.lease, at = excluded.at, percent = excluded.percent, message = excluded.message
RETURNING lease;
