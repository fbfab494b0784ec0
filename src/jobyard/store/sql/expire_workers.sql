-- First statement of the sweep: workers that stopped beating. Their attempts are found by the next statement, in a
-- snapshot that also sees what they claimed while this one waited for their rows.
DELETE FROM jobyard.worker WHERE id = ANY (ARRAY(
    SELECT id FROM jobyard.worker WHERE expires_at <= coalesce($1, now()) ORDER BY id FOR UPDATE SKIP LOCKED))
RETURNING id, name;
