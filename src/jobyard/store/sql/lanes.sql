-- The lanes of the types $1: what a worker may claim from.
SELECT id, tenant, queue, type, priority, suspect FROM jobyard.lane WHERE type = ANY ($1) ORDER BY id;
