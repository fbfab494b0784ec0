-- Take up to $3 ready jobs of the lanes $1, in the order given, each from its scan hint $2: the highest seq this
-- worker has claimed there. Starting at the hint passes over the dead index entries of what was claimed before.
-- The worker column proves that worker $4 is alive: without a live row it is NULL and the whole claim rolls back.
-- An empty poll writes nothing, not even a lock. ctid arrays and OFFSET 0 pin the plan: statements prepared on
-- empty tables otherwise chose joins that ran 8 times slower.
-- `waited`: seconds since it became ready (date_part, since extract computes a numeric). `previous`: the lease of the
-- attempt before, looked up for retries alone. Both are for showing only.
-- $5: seconds of a lease. $6: the last seq to take in each lane; empty, as usual, means any.
WITH taken AS (
    DELETE FROM jobyard.ready WHERE ctid = ANY (ARRAY(
        SELECT head.ctid
        FROM unnest($1::int[], $2::bigint[], $6::bigint[]) AS l (lane, hint, last),
             LATERAL (SELECT r.ctid FROM jobyard.ready r WHERE r.lane = l.lane AND r.seq > l.hint
                      AND r.seq <= coalesce(l.last, 9223372036854775807)
                      ORDER BY r.seq LIMIT $3 FOR UPDATE SKIP LOCKED) head
        LIMIT $3))
    RETURNING job, lane, seq, since, run, attempt, crashes
), wanted AS MATERIALIZED (
    SELECT t.*, j.tenant, j.type, j.queue, j.payload, j.timeout_seconds, j.max_attempts, j.backoff_base,
           j.backoff_cap, j.tags, j.metadata, j.trace, j.created_at
    FROM taken t
    LEFT JOIN LATERAL (SELECT * FROM jobyard.job WHERE id = t.job OFFSET 0) j ON true
), held AS (
    INSERT INTO jobyard.active (job, lease, worker, deadline, tenant, lane, run, attempt, crashes)
    SELECT job, seq,
           (SELECT id FROM jobyard.worker WHERE id = $4 AND expires_at > now() FOR KEY SHARE),
           now() + make_interval(secs => timeout_seconds + $5), tenant, lane, run, attempt + 1, crashes
    FROM wanted
), told AS (
    INSERT INTO jobyard.event (tenant, kind, jobs, attempts, leases, worker)
    SELECT tenant, 'started', array_agg(job), array_agg(attempt + 1), array_agg(seq), $4 FROM wanted GROUP BY tenant
)
SELECT job, seq AS lease, lane, run, attempt + 1 AS attempt, crashes, type, queue, payload, timeout_seconds,
       max_attempts, backoff_base, backoff_cap, tags, metadata, trace, created_at,
       date_part('epoch', now() - since) AS waited,
       CASE WHEN attempt > 0 THEN (SELECT max(a.lease) FROM jobyard.attempt a WHERE a.job = wanted.job) END AS previous
FROM wanted;
