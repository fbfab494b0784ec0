-- $1: the duty, $2: who had it.
DELETE FROM jobyard.duty WHERE name = $1 AND holder = $2;
