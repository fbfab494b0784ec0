-- The event bus where PostgreSQL is the bus: topics, who subscribes, what was published, and what each subscription has
-- not acked yet. It knows nothing of jobs.

CREATE TABLE jobyard.topic (
    name text PRIMARY KEY
);

CREATE TABLE jobyard.subscription (
    name           text PRIMARY KEY,
    topic          text NOT NULL REFERENCES jobyard.topic (name),
    ack_seconds    float8 NOT NULL,
    max_deliveries int NOT NULL
);
CREATE INDEX subscription_topic ON jobyard.subscription (topic);

-- A message stays for as long as a repeat of it is to be known by its id, and for as long as a subscription wants it.
CREATE TABLE jobyard.message (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic        text NOT NULL,
    id           text NOT NULL,
    key          text NOT NULL,
    body         bytea NOT NULL,
    attributes   json NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (topic, id)
);
CREATE INDEX message_published_at ON jobyard.message (published_at);

-- One row for each message that a subscription has not acked. `due_at`: when it may be delivered next. `deliveries`: how
-- often it was, and so which delivery an ack speaks of. `set_aside`: it was delivered too often and waits for a person.
CREATE TABLE jobyard.delivery (
    subscription text NOT NULL,
    seq          bigint NOT NULL,
    key          text NOT NULL,
    due_at       timestamptz NOT NULL DEFAULT now(),
    deliveries   int NOT NULL DEFAULT 0,
    set_aside    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (subscription, seq)
) WITH (fillfactor = 70);
CREATE INDEX delivery_due ON jobyard.delivery (subscription, due_at, seq) WHERE NOT set_aside;
CREATE INDEX delivery_key ON jobyard.delivery (subscription, key, seq) WHERE key <> '' AND NOT set_aside;
CREATE INDEX delivery_seq ON jobyard.delivery (seq);
ALTER TABLE jobyard.delivery SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
                                  autovacuum_vacuum_cost_delay = 0);
