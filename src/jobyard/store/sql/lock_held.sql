-- Lock the attempts that are still held under these leases, in the order given (the caller sorts by job). What
-- becomes of them is decided on the locked rows and written by back.sql, in a second statement of the same
-- transaction, whose new snapshot sees whatever was committed while this one waited.
-- $1 jobs, $2 leases.
SELECT held.*
FROM unnest($1::uuid[], $2::bigint[]) AS u (job, lease)
CROSS JOIN LATERAL (
    SELECT a.job FROM jobyard.active a
    WHERE a.job = u.job AND a.lease = u.lease FOR UPDATE OFFSET 0) held;
