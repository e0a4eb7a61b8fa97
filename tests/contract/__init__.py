"""Contract tests: what a real ksqlDB was recorded to answer, and what our client makes of it."""
