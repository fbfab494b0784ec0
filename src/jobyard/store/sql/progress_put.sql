-- What running attempts say of their progress: the latest of each, and only while its lease is held. Whoever is missing
-- from the answer had lost it. Locked and written in order of job (the caller sorts).
-- $1 jobs, $2 leases, $3 percents, $4 messages.
INSERT INTO jobyard.progress (job, lease, percent, message)
SELECT held.job, held.lease, u.percent, u.message
FROM unnest($1::uuid[], $2::bigint[], $3::float8[], $4::text[]) AS u (job, lease, percent, message)
CROSS JOIN LATERAL (
    SELECT job, lease FROM jobyard.active WHERE job = u.job AND lease = u.lease FOR KEY SHARE OFFSET 0) held
ON CONFLICT (job) DO UPDATE
    SET lease = excluded.lease, at = excluded.at, percent = excluded.percent, message = excluded.message
RETURNING job;
