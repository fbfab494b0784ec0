-- The log is now in cluster $1. Where it was restored there, its transaction ids and the ticks are another cluster's: it is
-- read again by seq, from what no tick has seen and what is younger than $2 seconds before the last one. What a restore
-- wrote is known by a row version that is not of the transaction that the row names; where there is none, the cluster was
-- upgraded with its transaction ids. The epoch's row is locked: one does it.
WITH here AS MATERIALIZED (
    SELECT one FROM jobyard.log_epoch WHERE cluster <> $1 FOR UPDATE
), restored AS MATERIALIZED (
    SELECT e.seq FROM here, LATERAL (
        SELECT seq FROM jobyard.event
        WHERE xmin::text::bigint <> (xid::text::numeric % 4294967296)::bigint ORDER BY seq DESC LIMIT 1) e
), last AS MATERIALIZED (
    SELECT t.* FROM restored, LATERAL (SELECT id, snap, at FROM jobyard.tick ORDER BY id DESC LIMIT 1) t
), gone AS (
    DELETE FROM jobyard.tick WHERE EXISTS (SELECT FROM restored)
), first AS (
    INSERT INTO jobyard.tick (id, snap) SELECT id + 1, pg_current_snapshot() FROM last RETURNING id
), epoch AS (
    UPDATE jobyard.log_epoch e
    SET cluster = $1, restored_to = coalesce(restored.seq, e.restored_to), seen = coalesce(last.snap, e.seen),
        seen_at = coalesce(last.at - make_interval(secs => $2), e.seen_at)
    FROM here LEFT JOIN restored ON true LEFT JOIN last ON true
)
UPDATE jobyard.relay r SET tick = first.id, upto = first.id, seq = 0, turn = turn + 1, held_until = '-infinity'
FROM first;
