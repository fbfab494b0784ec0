-- The worker has nothing in flight any more and leaves.
DELETE FROM jobyard.worker WHERE id = $1;
