-- Take, for $1 seconds, up to $2 shards that are free, have something left, and stand at one place: that which is furthest
-- behind. Nothing is written where nothing is left.
WITH free AS MATERIALIZED (
    SELECT shard, tick, upto, seq FROM jobyard.relay
    WHERE held_until < now() AND (upto IS NOT NULL OR tick < (SELECT max(id) FROM jobyard.tick))
    ORDER BY tick, seq, shard FOR UPDATE SKIP LOCKED
), first AS (
    SELECT * FROM free ORDER BY tick, coalesce(seq, 0), shard LIMIT 1
), chosen AS (
    SELECT f.shard FROM free f, first
    WHERE (f.tick, f.seq) = (first.tick, first.seq) AND f.upto IS NOT DISTINCT FROM first.upto
    ORDER BY f.shard LIMIT $2
)
UPDATE jobyard.relay r SET turn = turn + 1, held_until = now() + make_interval(secs => $1)
FROM chosen WHERE r.shard = chosen.shard
RETURNING r.shard, r.turn, r.tick, r.upto, r.seq;
