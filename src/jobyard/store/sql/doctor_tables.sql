-- Rows that are dead and rows that are not, as the statistics have them, and when each table was last vacuumed.
SELECT relname AS name, n_live_tup AS live, n_dead_tup AS dead,
       extract(epoch FROM now() - greatest(last_autovacuum, last_vacuum))::float8 AS vacuumed_ago
FROM pg_stat_user_tables WHERE schemaname = 'jobyard' ORDER BY relname;
