-- What people ask of a job that exists (to be cancelled, to live again), and what its attempts tell of themselves.

-- One row a redrive. `run` is the failed run it answers, and the key is the guard: a run is answered once, whoever
-- asks and however often. Insert only.
CREATE TABLE jobyard.redrive (
    job uuid NOT NULL,
    run int NOT NULL,
    at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, run)
);

-- Somebody wants this run to end. `lease`: the attempt that ran when it was asked. Insert only.
CREATE TABLE jobyard.cancel_request (
    job   uuid NOT NULL,
    run   int NOT NULL,
    lease bigint NOT NULL,
    at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, run)
);

-- How far the latest attempt that said so has come: one row a job, replaced.
CREATE TABLE jobyard.progress (
    job     uuid PRIMARY KEY,
    lease   bigint NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    percent float8,
    message text
) WITH (fillfactor = 50);

-- What attempts wrote onto their job, a bounded number of lines each. `line` counts within the attempt.
CREATE TABLE jobyard.job_log (
    job   uuid NOT NULL,
    lease bigint NOT NULL,
    line  int NOT NULL,
    at    timestamptz NOT NULL,
    level text NOT NULL,
    text  text NOT NULL,
    PRIMARY KEY (job, lease, line)
);

-- leases[i] belongs to jobs[i]: which attempt it was about. `worker`: who started them. With these the log alone can
-- tell whether an outcome came from its owner.
ALTER TABLE jobyard.event ADD COLUMN leases bigint[], ADD COLUMN worker bigint;
