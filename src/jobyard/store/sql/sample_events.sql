-- How many jobs had which event since row $1 of the log, and where the log ends now. A row that committed late with
-- a lower seq is missed: this is for showing, never for deciding.
SELECT e.kind, sum(cardinality(e.jobs))::int8 AS jobs, max(e.seq) AS last
FROM jobyard.event e WHERE e.seq > $1 GROUP BY e.kind;
