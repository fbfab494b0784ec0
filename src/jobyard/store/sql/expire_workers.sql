-- First statement of the sweep: workers that stopped beating. One whose claim is on its way holds its row and is
-- passed over until the next sweep; a claim that comes later finds no row and rolls back. The attempts of the gone are
-- found by the next statement, in a snapshot that sees all they had claimed.
DELETE FROM jobyard.worker WHERE id = ANY (ARRAY(
    SELECT id FROM jobyard.worker WHERE expires_at <= coalesce($1, now()) ORDER BY id FOR UPDATE SKIP LOCKED))
RETURNING id, name;
