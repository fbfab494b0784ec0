-- Subscription $1 is to be given message $2 again in $4 seconds: later, because its holder needs more time, or soon,
-- because it was handed back. Only of the delivery it speaks of, $3.
UPDATE jobyard.delivery SET due_at = now() + make_interval(secs => $4)
WHERE subscription = $1 AND seq = $2 AND deliveries = $3 AND NOT set_aside;
