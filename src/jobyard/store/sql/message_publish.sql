-- Publish messages to topic $1: all, or none. One whose id the topic has already is not published again. Every
-- subscription of the topic gets each. $2 ids, $3 keys, $4 bodies, $5 attributes; $6 the channel that wakes subscribers.
WITH asked AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::bytea[], $5::json[]) WITH ORDINALITY
    AS a (id, key, body, attributes, place)
), kept AS (
    INSERT INTO jobyard.message (topic, id, key, body, attributes)
    SELECT $1, id, key, body, attributes FROM asked ORDER BY place
    ON CONFLICT (topic, id) DO NOTHING
    RETURNING seq, key
), sent AS (
    INSERT INTO jobyard.delivery (subscription, seq, key)
    SELECT s.name, kept.seq, kept.key FROM kept
    CROSS JOIN LATERAL (SELECT name FROM jobyard.subscription WHERE topic = $1 OFFSET 0) s
    RETURNING 1
)
SELECT count(*)::int AS published,
       CASE WHEN count(*) > 0 THEN pg_notify($6, $1) END
FROM kept;
