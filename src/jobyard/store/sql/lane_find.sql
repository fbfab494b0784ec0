SELECT id FROM jobyard.lane WHERE tenant = $1 AND queue = $2 AND type = $3 AND priority = $4 AND suspect = $5;
