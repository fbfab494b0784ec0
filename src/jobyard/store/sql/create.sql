-- A flush of creates: jobs, their place, the event and the wake-up in one statement, whole or not at all.
-- Keys: a row whose idempotency key is taken inserts nothing and is missing from the answer; the caller looks it
-- up in a new statement (in this one the winner's row may not be visible yet). ORDER BY tenant, key is what keeps
-- two flushes from deadlocking.
-- $1 to $18: the columns of `asked`, an array each; $19: the flush made a new lane; $20: hours a key lives.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::int[], $3::int[], $4::text[], $5::text[], $6::int2[], $7::int2[], $8::float8[],
        $9::float8[], $10::float8[], $11::timestamptz[], $12::float8[], $13::json[], $14::jsonb[], $15::jsonb[],
        $16::text[], $17::text[], $18::bytea[])
    AS a (id, tenant, lane, type, queue, priority, max_attempts, timeout_seconds,
          backoff_base, backoff_cap, run_at, delay_seconds, payload, tags, metadata,
          trace, key, digest)
), held AS (
    INSERT INTO jobyard.idempotency AS i (tenant, key, job, digest, expires_at)
    SELECT tenant, key, id, digest, now() + make_interval(hours => $20) FROM asked WHERE key IS NOT NULL
    ORDER BY tenant, key
    ON CONFLICT (tenant, key) DO UPDATE
        SET job = excluded.job, digest = excluded.digest, expires_at = excluded.expires_at
        WHERE i.expires_at < now()
    RETURNING job
), new AS MATERIALIZED (
    SELECT id, tenant, lane, type, queue, priority, max_attempts, timeout_seconds, backoff_base, backoff_cap,
           coalesce(run_at, now() + make_interval(secs => delay_seconds)) AS run_at,
           payload, tags, metadata, trace
    FROM asked WHERE key IS NULL OR id IN (SELECT job FROM held)
), jobs AS (
    INSERT INTO jobyard.job (id, tenant, lane, type, queue, priority, max_attempts, timeout_seconds, backoff_base,
                             backoff_cap, run_at, payload, tags, metadata, trace)
    SELECT id, tenant, lane, type, queue, priority, max_attempts, timeout_seconds, backoff_base, backoff_cap,
           run_at, payload, tags, metadata, trace
    FROM new
), later AS (
    INSERT INTO jobyard.scheduled (job, run_at, lane, run, attempt, crashes)
    SELECT id, run_at, lane, 1, 0, 0 FROM new WHERE run_at > now()
), sooner AS (
    INSERT INTO jobyard.ready (lane, run, attempt, crashes, job)
    SELECT lane, 1, 0, 0, id FROM new WHERE run_at IS NULL OR run_at <= now()
), told AS (
    INSERT INTO jobyard.event (tenant, kind, jobs, attempts)
    SELECT tenant, 'created', array_agg(id), array_agg(0) FROM new GROUP BY tenant
)
SELECT array_agg(id) AS created,
       jobyard.wake(array_agg(DISTINCT lane) FILTER (WHERE $19 OR run_at IS NULL OR run_at <= now()),
                    array_agg(DISTINCT type), count(*)::int, $19)
FROM new;
