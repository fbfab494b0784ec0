-- How many living workers know each type.
SELECT type, count(*) AS workers FROM jobyard.worker, unnest(types) type WHERE expires_at > now() GROUP BY type;
