-- Make topic $1, and subscriptions $2 of it, with what each may take ($3 seconds, $4 deliveries). Those that are there
-- stay as they are.
WITH topic AS (
    INSERT INTO jobyard.topic (name) VALUES ($1) ON CONFLICT DO NOTHING
)
INSERT INTO jobyard.subscription (name, topic, ack_seconds, max_deliveries)
SELECT name, $1, ack_seconds, max_deliveries
FROM unnest($2::text[], $3::float8[], $4::int[]) AS u (name, ack_seconds, max_deliveries)
ORDER BY name
ON CONFLICT DO NOTHING;
