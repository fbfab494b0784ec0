-- Rows of the tables $1 by the statistics of the last vacuum or analyze; nothing is counted.
SELECT sum(reltuples) FILTER (WHERE reltuples > 0)::int8
FROM pg_class WHERE relnamespace = 'jobyard'::regnamespace AND relname = ANY ($1);
