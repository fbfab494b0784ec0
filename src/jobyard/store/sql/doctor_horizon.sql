-- Who keeps vacuum from removing dead rows, for longer than $1 seconds: transactions, prepared transactions and
-- replication slots. Never the text of a query, which may hold what is secret.
SELECT 'transaction' AS kind, format('pid %s, %s', pid, coalesce(nullif(application_name, ''), 'no name')) AS who, state,
       extract(epoch FROM now() - xact_start)::float8 AS seconds, pid
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND xact_start < now() - make_interval(secs => $1)
UNION ALL
SELECT 'prepared', gid, NULL, extract(epoch FROM now() - prepared)::float8, NULL
FROM pg_prepared_xacts WHERE prepared < now() - make_interval(secs => $1)
UNION ALL
SELECT 'slot', slot_name, CASE WHEN active THEN 'active' ELSE 'inactive' END, NULL, NULL
FROM pg_replication_slots WHERE xmin IS NOT NULL OR (catalog_xmin IS NOT NULL AND NOT active)
ORDER BY seconds DESC NULLS LAST;
