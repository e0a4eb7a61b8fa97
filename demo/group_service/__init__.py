"""Serves one group's asset events as server-sent events, read from ksqlDB by a single push query."""
