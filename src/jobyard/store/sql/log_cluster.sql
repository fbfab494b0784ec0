-- Which cluster this is, and whose the transaction ids of the log are; null before anybody has read it.
SELECT (SELECT system_identifier FROM pg_control_system()) AS here, (SELECT cluster FROM jobyard.log_epoch) AS written;
