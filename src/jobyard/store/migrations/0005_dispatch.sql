-- Dispatch over a message broker: one maintainer at a time announces what became ready, and is woken for it.

-- What one process at a time does for all. Whoever holds it renews it well before `until`.
CREATE TABLE jobyard.duty (
    name   text PRIMARY KEY,
    holder uuid NOT NULL,
    until  timestamptz NOT NULL
) WITH (fillfactor = 50);

-- As before; and while somebody announces, he is told as worker 0, whether or not a worker is idle.
CREATE OR REPLACE FUNCTION jobyard.wake(lanes int[], types text[], jobs int, always boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    chosen text := '*';
BEGIN
    IF lanes IS NULL THEN
        RETURN;
    END IF;
    IF NOT always THEN
        SELECT string_agg(i.id::text, ',') INTO chosen
        FROM ((SELECT w.id FROM jobyard.worker w
               WHERE w.idle AND w.expires_at > now() AND w.types && wake.types
               ORDER BY random() LIMIT least(100, 1 + jobs / 16))
              UNION ALL
              SELECT 0 FROM jobyard.duty d WHERE d.name = 'announce' AND d.until > now()) i;
    END IF;
    IF chosen IS NOT NULL THEN
        PERFORM pg_notify('jobyard_ready', array_to_string(lanes[1:100], ',') || '|' || chosen);
    END IF;
END $$;
