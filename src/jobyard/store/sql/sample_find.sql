-- What was sampled last, and how long ago.
SELECT at, event_seq, types, history, extract(epoch FROM now() - at)::float8 AS age FROM jobyard.sample;
