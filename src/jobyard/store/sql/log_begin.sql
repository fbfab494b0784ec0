-- The log is read from here on, in cluster $1, by $2 shards. Whoever comes second changes nothing.
WITH begun AS (
    INSERT INTO jobyard.log_epoch (cluster) VALUES ($1) ON CONFLICT DO NOTHING RETURNING 1
), first AS (
    INSERT INTO jobyard.tick (id, snap) SELECT 1, pg_current_snapshot() FROM begun RETURNING id
)
INSERT INTO jobyard.relay (shard, tick) SELECT shard, first.id FROM first, generate_series(0, $2::int - 1) AS shard;
