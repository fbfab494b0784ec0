-- Lock jobs against other verbs and against retention, in order of id; those that are gone are missing from the answer.
SELECT locked.id FROM unnest($1::uuid[]) AS u (job)
CROSS JOIN LATERAL (SELECT id FROM jobyard.job WHERE id = u.job FOR NO KEY UPDATE OFFSET 0) locked;
