-- What waits and what happened lately, as a maintainer saw it last: one row, replaced every few seconds, so that
-- nobody counts a hot table to show a number. `event_seq`: the log was counted up to here.
CREATE TABLE jobyard.sample (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    at        timestamptz NOT NULL,
    event_seq bigint NOT NULL,
    types     json NOT NULL,
    history   json NOT NULL
);
