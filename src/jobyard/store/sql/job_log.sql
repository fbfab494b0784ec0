-- The lines that attempts of job $1 wrote, in order, behind line $3 of lease $2, at most $4.
SELECT lease, line, at, level, text FROM jobyard.job_log
WHERE job = $1 AND (lease, line) > ($2::bigint, $3::int)
ORDER BY lease, line LIMIT $4;
