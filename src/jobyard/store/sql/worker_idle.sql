-- Whether worker $1 wants to be woken.
UPDATE jobyard.worker SET idle = $2 WHERE id = $1;
