-- Where a job is, is its state: a row in `ready`, `scheduled` (both pending), `active` (processing) or `done`.
-- ready, scheduled and active are only ever inserted into and deleted from, never updated: an update would move
-- a row's ctid under a settle that holds it.

CREATE SCHEMA IF NOT EXISTS jobyard;

-- What was asked. Insert only; `payload` is json and not jsonb so that the client's own bytes come back.
CREATE TABLE jobyard.job (
    id              uuid PRIMARY KEY,
    created_at      timestamptz NOT NULL DEFAULT now(),
    run_at          timestamptz,
    timeout_seconds float8 NOT NULL,
    backoff_base    float8 NOT NULL,
    backoff_cap     float8 NOT NULL,
    tenant          int NOT NULL DEFAULT 1,
    lane            int NOT NULL,
    max_attempts    smallint NOT NULL,
    priority        smallint NOT NULL,
    type            text NOT NULL,
    queue           text NOT NULL,
    trace           text,
    tags            jsonb,
    metadata        jsonb,
    payload         json NOT NULL
);
CREATE INDEX job_tags ON jobyard.job USING gin (tags) WHERE tags IS NOT NULL;
CREATE INDEX job_metadata ON jobyard.job USING gin (metadata jsonb_path_ops) WHERE metadata IS NOT NULL;

-- What a claim chooses from. Made at first use, never deleted. `suspect`: 0 none, 1 was in flight when a worker
-- died, 2 was so twice: a worker runs one such at a time.
CREATE TABLE jobyard.lane (
    id       int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant   int NOT NULL,
    priority smallint NOT NULL,
    suspect  smallint NOT NULL,
    queue    text NOT NULL,
    type     text NOT NULL,
    UNIQUE (tenant, queue, type, priority, suspect)
);

-- May run now. `seq` is new at each entry and becomes the lease id of the attempt: never reused. CACHE 1, since
-- cached ranges would let a claim's scan hint jump over rows.
CREATE TABLE jobyard.ready (
    seq     bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    since   timestamptz NOT NULL DEFAULT now(),
    lane    int NOT NULL,
    run     int NOT NULL,
    attempt int NOT NULL,
    crashes smallint NOT NULL,
    job     uuid NOT NULL UNIQUE,
    PRIMARY KEY (lane, seq)
);

-- Exactly the attempts in flight. `attempt` is the number of this try; `deadline` is its timeout plus a lease,
-- the second line behind the worker's own enforcement.
CREATE TABLE jobyard.active (
    job        uuid PRIMARY KEY,
    lease      bigint NOT NULL,
    worker     bigint NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    deadline   timestamptz NOT NULL,
    tenant     int NOT NULL,
    lane       int NOT NULL,
    run        int NOT NULL,
    attempt    int NOT NULL,
    crashes    smallint NOT NULL
);
CREATE INDEX active_worker ON jobyard.active (worker);

-- Future runs and waiting retries; a maintainer moves what is due to `ready`.
CREATE TABLE jobyard.scheduled (
    job     uuid PRIMARY KEY,
    run_at  timestamptz NOT NULL,
    since   timestamptz NOT NULL DEFAULT now(),
    lane    int NOT NULL,
    run     int NOT NULL,
    attempt int NOT NULL,
    crashes smallint NOT NULL
);
CREATE INDEX scheduled_run_at ON jobyard.scheduled (run_at);

-- How a run ended, which is also the record of its last attempt. Append only.
CREATE TABLE jobyard.done (
    job         uuid NOT NULL,
    run         int NOT NULL,
    attempt     int NOT NULL,
    lease       bigint,
    worker      bigint,
    started_at  timestamptz,
    finished_at timestamptz NOT NULL DEFAULT now(),
    tenant      int NOT NULL,
    status      text NOT NULL CHECK (status IN ('completed', 'failed')),
    reason      text CHECK ((status = 'failed') = (reason IS NOT NULL)),
    result      json,
    error       json,
    PRIMARY KEY (job, run)
);
CREATE INDEX done_failed ON jobyard.done (job) WHERE status = 'failed';
CREATE INDEX done_completed_at ON jobyard.done (finished_at) WHERE status = 'completed';
CREATE INDEX done_failed_at ON jobyard.done (finished_at) WHERE status = 'failed';

-- The attempts that did not end their run. `outcome`: retry, release, orphan or crash. `retry_at`: when the next
-- try was due. Append only.
CREATE TABLE jobyard.attempt (
    job        uuid NOT NULL,
    lease      bigint NOT NULL,
    run        int NOT NULL,
    attempt    int NOT NULL,
    worker     bigint NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL DEFAULT now(),
    retry_at   timestamptz,
    outcome    text NOT NULL CHECK (outcome IN ('retry', 'release', 'orphan', 'crash')),
    error      json,
    PRIMARY KEY (job, lease)
);

-- The log: one row a statement, tenant and kind, written in the transaction of the change itself.
-- jobs[i], attempts[i] and details[i] belong together.
CREATE TABLE jobyard.event (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at       timestamptz NOT NULL DEFAULT now(),
    tenant   int NOT NULL,
    kind     text NOT NULL,
    jobs     uuid[] NOT NULL,
    attempts int[] NOT NULL,
    details  text[]
);

-- One row a worker process, with an id that is new at each start. The only row a heartbeat updates.
CREATE TABLE jobyard.worker (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    concurrency int NOT NULL,
    idle        boolean NOT NULL DEFAULT false,
    name        text NOT NULL,
    types       text[] NOT NULL
);

-- One key with one body is one job for 24 hours.
CREATE TABLE jobyard.idempotency (
    tenant     int NOT NULL,
    key        text NOT NULL,
    job        uuid NOT NULL,
    digest     bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_expires ON jobyard.idempotency (expires_at);

-- Rows of these three live for milliseconds: vacuum by count of dead rows, not by share, and without pauses.
ALTER TABLE jobyard.ready SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE jobyard.active SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE jobyard.scheduled SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE jobyard.worker SET (fillfactor = 50);

-- Wakes workers for jobs that have just become ready. A NOTIFY takes one lock for the whole database at commit, so
-- there is at most one a statement, and none where no worker is idle. It names as many idle workers, at random, as
-- the jobs can use: the others stay asleep. `always`: a new lane, which every worker has to learn.
CREATE FUNCTION jobyard.wake(lanes int[], types text[], jobs int, always boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    chosen text := '*';
BEGIN
    IF lanes IS NULL THEN
        RETURN;
    END IF;
    IF NOT always THEN
        SELECT string_agg(i.id::text, ',') INTO chosen
        FROM (SELECT w.id FROM jobyard.worker w
              WHERE w.idle AND w.expires_at > now() AND w.types && wake.types
              ORDER BY random() LIMIT least(100, 1 + jobs / 16)) i;
    END IF;
    IF chosen IS NOT NULL THEN
        PERFORM pg_notify('jobyard_ready', array_to_string(lanes[1:100], ',') || '|' || chosen);
    END IF;
END $$;

-- Where each job is now: its live place, or else its last run's end.
CREATE VIEW jobyard.place AS
SELECT job, 'pending'::text AS status, NULL::text AS reason, run, attempt, crashes, lane, since AS run_at,
       since AS updated_at, NULL::bigint AS lease, NULL::bigint AS worker, NULL::json AS result, NULL::json AS error
FROM jobyard.ready
UNION ALL
SELECT job, 'pending', NULL, run, attempt, crashes, lane, run_at, since, NULL, NULL, NULL, NULL
FROM jobyard.scheduled
UNION ALL
SELECT job, 'processing', NULL, run, attempt, crashes, lane, NULL, claimed_at, lease, worker, NULL, NULL
FROM jobyard.active
UNION ALL
SELECT job, status, reason, run, attempt, NULL, NULL, NULL, finished_at, lease, worker, result, error
FROM jobyard.done;

-- For people: SELECT * FROM jobs. Made only where the name is free.
DO $$
BEGIN
    IF to_regclass('public.jobs') IS NULL THEN
        CREATE VIEW public.jobs AS
        SELECT j.id, j.type, j.payload, p.status, j.created_at, p.updated_at, j.queue, j.priority, p.attempt,
               j.max_attempts, p.run, p.reason, p.result, p.error
        FROM jobyard.job j
        CROSS JOIN LATERAL (SELECT * FROM jobyard.place WHERE job = j.id ORDER BY run DESC LIMIT 1) p;
    END IF;
END $$;
