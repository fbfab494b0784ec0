-- These shards $1, in these turns $2, have come to tick $3 and, of $4, to seq $5; they are free. Whose turn is over changes
-- nothing.
UPDATE jobyard.relay r SET tick = $3, upto = $4, seq = $5, held_until = '-infinity'
FROM unnest($1::smallint[], $2::bigint[]) AS u (shard, turn)
WHERE r.shard = u.shard AND r.turn = u.turn
RETURNING r.shard;
