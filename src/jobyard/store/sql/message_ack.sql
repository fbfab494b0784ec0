-- Subscription $1 is done with messages $2. Only of the delivery it speaks of, $3: one that was given anew since is
-- another's. Rows in order of seq, as every statement over many of them.
WITH done AS MATERIALIZED (
    SELECT d.ctid FROM unnest($2::bigint[], $3::int[]) AS u (seq, deliveries)
    CROSS JOIN LATERAL (
        SELECT ctid FROM jobyard.delivery
        WHERE subscription = $1 AND seq = u.seq AND deliveries = u.deliveries AND NOT set_aside FOR UPDATE OFFSET 0) d
)
DELETE FROM jobyard.delivery WHERE ctid = ANY (ARRAY(SELECT ctid FROM done));
