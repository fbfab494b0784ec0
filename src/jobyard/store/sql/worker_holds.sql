-- What the database believes worker $1 holds: a worker compares, and releases what it does not know of (the answer
-- to its claim was lost).
SELECT job, lease FROM jobyard.active WHERE worker = $1;
