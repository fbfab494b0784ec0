-- Seconds until the next scheduled job is due; null when none waits.
SELECT extract(epoch FROM run_at - now())::float8 FROM jobyard.scheduled ORDER BY run_at LIMIT 1;
