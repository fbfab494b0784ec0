-- Which of these runs are over. One query answers for every waiter of a process. $1 jobs, $2 runs.
SELECT u.job, u.run FROM unnest($1::uuid[], $2::int[]) AS u (job, run)
CROSS JOIN LATERAL (SELECT FROM jobyard.done WHERE job = u.job AND run = u.run OFFSET 0) d;
