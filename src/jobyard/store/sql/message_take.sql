-- Up to $2 messages that subscription $1 may be given now, to be acked within its ack_seconds. Of the messages of one key
-- only the oldest is given, so that they are handled in their order. What was given too often already is set aside.
WITH terms AS MATERIALIZED (
    SELECT ack_seconds, max_deliveries FROM jobyard.subscription WHERE name = $1
), due AS MATERIALIZED (
    SELECT d.ctid, d.deliveries >= terms.max_deliveries AS too_often, terms.ack_seconds
    FROM terms
    CROSS JOIN LATERAL (
        SELECT ctid, deliveries FROM jobyard.delivery d
        WHERE d.subscription = $1 AND NOT d.set_aside AND d.due_at <= now()
          AND NOT EXISTS (
              SELECT FROM jobyard.delivery earlier
              WHERE d.key <> '' AND earlier.subscription = $1 AND earlier.key = d.key AND earlier.key <> ''
                AND NOT earlier.set_aside AND earlier.seq < d.seq)
        ORDER BY d.due_at, d.seq LIMIT $2 FOR UPDATE SKIP LOCKED) d
), given AS (
    UPDATE jobyard.delivery d
    SET deliveries = d.deliveries + (NOT due.too_often)::int, set_aside = due.too_often,
        due_at = now() + make_interval(secs => due.ack_seconds)
    FROM due WHERE d.ctid = due.ctid
    RETURNING d.seq, d.deliveries, d.set_aside
)
SELECT g.seq, g.deliveries, g.set_aside, m.id, m.key, m.body, m.attributes
FROM given g
CROSS JOIN LATERAL (SELECT * FROM jobyard.message WHERE seq = g.seq OFFSET 0) m
ORDER BY g.seq;
