-- Reading the event log without gaps, for whoever tells others of it.

CREATE INDEX event_xid ON jobyard.event (xid);

-- A point of the log: what its snapshot sees, and the one before it does not, was committed between the two. Appended
-- while there is something new; a tick that every reader has passed goes.
CREATE TABLE jobyard.tick (
    id   bigint PRIMARY KEY,
    snap pg_snapshot NOT NULL,
    at   timestamptz NOT NULL DEFAULT now()
);

-- How far the relay has come, a row for each shard of the jobs. Published is what is up to `tick`, and of what is up to
-- `upto`, where that is named, what has a seq up to `seq`. `upto` = `tick`: it goes through what was restored.
-- `turn`: of whoever has it now; what is said of an earlier turn changes nothing.
CREATE TABLE jobyard.relay (
    shard      smallint PRIMARY KEY,
    tick       bigint NOT NULL,
    upto       bigint,
    seq        bigint NOT NULL DEFAULT 0,
    turn       bigint NOT NULL DEFAULT 0,
    held_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

-- Whose transaction ids the log has: they mean nothing in another cluster. What was restored into this one has a seq up
-- to `restored_to`, and of that is published what `seen` sees and what is older than `seen_at`.
CREATE TABLE jobyard.log_epoch (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    cluster     bigint NOT NULL,
    restored_to bigint NOT NULL DEFAULT 0,
    seen        pg_snapshot,
    seen_at     timestamptz
);
