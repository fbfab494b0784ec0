-- The last of the next $2 ticks after $1.
SELECT max(id) FROM (SELECT id FROM jobyard.tick WHERE id > $1 ORDER BY id LIMIT $2) next;
