-- Which of these running attempts are asked to end. $1 jobs, $2 runs.
SELECT u.job, u.run FROM unnest($1::uuid[], $2::int[]) AS u (job, run)
CROSS JOIN LATERAL (SELECT FROM jobyard.cancel_request WHERE job = u.job AND run = u.run OFFSET 0) c;
