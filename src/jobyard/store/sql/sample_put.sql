-- Replace the sample, unless another maintainer took one less than $4 seconds ago.
INSERT INTO jobyard.sample AS s (at, event_seq, types, history) VALUES (now(), $1, $2, $3)
ON CONFLICT (one) DO UPDATE
    SET at = excluded.at, event_seq = excluded.event_seq, types = excluded.types, history = excluded.history
    WHERE s.at <= now() - make_interval(secs => $4)
RETURNING true;
