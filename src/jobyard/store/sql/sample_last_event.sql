-- The end of the log: where the first sample begins to count.
SELECT seq FROM jobyard.event ORDER BY seq DESC LIMIT 1;
